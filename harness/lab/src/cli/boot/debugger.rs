//! A debugger for the guest's kernel: where it connects, and how the user starts it.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use anyhow::{Context, Result};

use crate::process::script::quote;

/// Puts the kernel where its symbols are, and keeps it from mistaking a stop for a lockup.
pub(super) const APPEND: &str = "nokaslr nowatchdog";

/// Checks that QEMU can listen on this port.
///
/// # Errors
/// The port is in use, or reserved for root.
pub(super) fn check(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    listener
        .map(drop)
        .with_context(|| format!("cannot listen for a debugger on port {port}; give another with --gdb PORT"))
}

/// The message shown when the machine waits, with a line to paste into another terminal.
pub(super) fn invitation(port: u16, vmlinux: Option<&Path>) -> String {
    let connect = format!("-ex 'target remote :{port}'");
    match vmlinux {
        Some(vmlinux) => format!("the machine waits for a debugger:\n  gdb {} {connect}", quote(vmlinux)),
        None => {
            format!("the machine waits for a debugger (the vmlinux of --kernel is unknown):\n  gdb VMLINUX {connect}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_paste_names_the_kernel_and_the_port() {
        let known = invitation(1234, Some(Path::new("/a cache/vmlinux")));
        assert_eq!(known.lines().last(), Some("  gdb '/a cache/vmlinux' -ex 'target remote :1234'"));
        let unknown = invitation(4321, None);
        assert!(unknown.contains("the vmlinux of --kernel is unknown"), "{unknown}");
        assert_eq!(unknown.lines().last(), Some("  gdb VMLINUX -ex 'target remote :4321'"));
    }
}
