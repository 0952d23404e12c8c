//! The FUSE window: QEMU maps a file whose pages this process fills and takes back.
