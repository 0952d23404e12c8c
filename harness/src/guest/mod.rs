//! What goes into the guest: initramfs, ACPI tables, the agent channel.
