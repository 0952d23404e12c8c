//! Packages that the user names for the guest.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cxl_cram_lab::provision::{Options, Progress, ProvisionError, packages};

use super::fixture::Fixture;
use super::world;

/// What provisioning says.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The root with these packages, and what was said.
fn fetch(fixture: &Fixture, names: &[&str], offline: bool) -> (Result<PathBuf, ProvisionError>, String) {
    let names = names.iter().map(|name| name.parse().unwrap()).collect();
    let (said, options) = (Said::default(), Options { packages: names, offline, ..fixture.options() });
    let root = packages(&options, &Progress::lines(said.clone())).map(Option::unwrap);
    let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    (root, text)
}

#[test]
fn packages_come_with_what_they_depend_on_and_the_newest_is_reported() {
    let (fixture, ..) = world();
    let older = fixture.with_file("bash", "5.1-1", "", "usr/bin/bash", "old");
    let bash = fixture.with_file("bash", "5.2-1", "libtinfo6 (>= 6)", "usr/bin/bash", "new");
    let library = fixture.with_file("libtinfo6", "6.5-2", "", "usr/lib/libtinfo.so.6", "library");
    fixture.archive(&[older, bash, library]);
    let (root, said) = fetch(&fixture, &["bash"], false);
    let root = root.unwrap();
    assert_eq!(fs::read_to_string(root.join("usr/bin/bash")).unwrap(), "new");
    assert!(root.join("usr/lib/libtinfo.so.6").exists() && root.join("etc/passwd").exists());
    assert!(said.contains("packages: bash 5.2-1 and 1 that they depend on"), "{said}");

    // The cache answers without the archive, and under another order of names.
    fixture.sources("deb [trusted=yes] file:/nonexistent test main\n");
    let (again, said) = fetch(&fixture, &["bash", "bash"], true);
    assert_eq!(again.unwrap(), root);
    assert!(said.contains("bash 5.2-1"), "{said}");
    let error = fetch(&fixture, &["bash=5.1-1"], true).0.unwrap_err().to_string();
    assert!(error.contains("bash=5.1-1 is not in the cache yet"), "{error}");
}

#[test]
fn a_version_is_the_users_or_the_pin_and_else_the_newest() {
    let (fixture, _, _, tools) = world();
    let [newer, ..] = fixture.tools("82");
    let bash = ["5.1-1", "5.2-1"].map(|version| fixture.with_file("bash", version, "", "usr/bin/bash", version));
    fixture.archive(&[&bash[..], &tools, std::slice::from_ref(&newer)].concat());
    let (root, said) = fetch(&fixture, &["bash=5.1-1", "cxl"], false);
    assert_eq!(fs::read_to_string(root.unwrap().join("usr/bin/bash")).unwrap(), "5.1-1");
    assert!(said.contains("packages: bash 5.1-1, cxl 81"), "cxl is pinned: {said}");
    // A pin that the archive lost.
    fixture.archive(&[newer]);
    let (root, said) = fetch(&fixture, &["cxl"], false);
    assert!(root.is_ok() && said.contains("cxl 82"), "{said}");
}

#[test]
fn a_package_that_the_archive_does_not_have_is_named_with_similar_ones() {
    let (fixture, ..) = world();
    let bash = fixture.with_file("bash", "5.2-1", "", "usr/bin/bash", "");
    let broken = fixture.with_file("broken", "1", "nothing", "usr/bin/broken", "");
    fixture.archive(&[bash, broken]);
    for (name, error) in [
        ("bahs", "the package archive has no bahs; available: bash"),
        ("bash=9", "the package archive has no bash=9; available: bash=5.2-1"),
        ("zsh", "the package archive has no zsh; available: none of a similar name"),
    ] {
        assert_eq!(fetch(&fixture, &[name], false).0.unwrap_err().to_string(), error);
    }
    let error = fetch(&fixture, &["broken"], false).0.unwrap_err().to_string();
    assert!(error.contains("nothing"), "{error}");
}
