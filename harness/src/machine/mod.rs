//! The QEMU process.
