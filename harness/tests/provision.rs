//! Provisioning through its public face.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cxl_cram_harness::provision::{CORPUS_BYTES, Cache, Options, Progress, ProvisionError, provision};

fn options(cache: &Path) -> Options {
    Options { cache_dir: Some(cache.to_owned()), offline: true, ..Options::default() }
}

#[test]
fn a_named_qemu_that_cannot_host_the_device_stops_the_run_before_anything_is_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let options = Options { qemu: Some("/bin/true".into()), ..options(cache.path()) };
    let error = provision(&options, &Progress::quiet()).unwrap_err();
    assert!(matches!(error, ProvisionError::UnfitQemu { .. }), "{error}");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn a_kernel_that_does_not_exist_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let qemu = fit_qemu(cache.path()).unwrap();
    let options = Options { qemu: Some(qemu), kernel: Some("/nonexistent/bzImage".into()), ..options(cache.path()) };
    let error = provision(&options, &Progress::quiet()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/bzImage"), "{error}");
}

#[test]
fn a_kernel_tree_that_is_none_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let qemu = fit_qemu(cache.path()).unwrap();
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("Makefile"), "all:\n").unwrap();
    let options = Options { qemu: Some(qemu), kernel_tree: Some(tree.path().into()), ..options(cache.path()) };
    let error = provision(&options, &Progress::quiet()).unwrap_err();
    let refused = matches!(error, ProvisionError::Missing { .. } | ProvisionError::MissingTools { .. });
    assert!(refused, "{error}");
}

#[test]
#[ignore = "needs a cache that an earlier run has filled"]
fn everything_in_a_filled_cache_is_usable() {
    let options = Options { offline: true, ..Options::default() };
    let provisioned = provision(&options, &Progress::quiet()).unwrap();

    let version = provisioned.qemu.command().arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("QEMU emulator"), "{version:?}");

    // A bzImage says "HdrS" at 0x202 of its set-up header.
    let image = fs::read(&provisioned.kernel.image).unwrap();
    assert_eq!(&image[0x202..0x206], b"HdrS");
    assert!(provisioned.kernel.modules[0].ends_with("cxl_acpi.ko"));

    let root = &provisioned.guest_tools;
    let mut cxl = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
    cxl.arg("--inhibit-cache").arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu"));
    let version = cxl.arg(root.join("usr/bin/cxl")).arg("version").output().unwrap();
    assert!(version.status.success(), "{version:?}");
    assert!(Command::new(root.join("usr/bin/busybox")).arg("true").status().unwrap().success());

    assert_eq!(fs::metadata(&provisioned.corpus).unwrap().len(), CORPUS_BYTES);
    assert!(provisioned.guest_program.is_file());
    assert!(Cache::open(None).unwrap().entries().unwrap().iter().any(|entry| entry.bytes > CORPUS_BYTES));
}

/// A program that answers like a fit QEMU. Another process writes it: a descriptor of ours could be inherited by what a
/// parallel test starts, and a program that is open for writing does not start.
fn fit_qemu(folder: &Path) -> std::io::Result<PathBuf> {
    let path = folder.join("qemu");
    let script = "#!/bin/sh\necho 'QEMU emulator version 10.1.0'; echo 'name \"vfio-user-pci\"'\n";
    Command::new("sh").args(["-c", r#"printf %s "$1" > "$2" && chmod +x "$2""#, "sh", script]).arg(&path).status()?;
    Ok(path)
}
