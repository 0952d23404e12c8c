//! The server with real QEMU.
