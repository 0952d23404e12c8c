//! Provisioning over time: an archive gets newer packages, loses pinned ones, has wrong hashes, or does not answer.
//!
//! Each test creates its own archive and checkout, and runs the harness as a user would.

mod fixture;
mod packages;

use std::fs;

use self::fixture::{Fixture, Package, Ran};

/// A checkout that pins kernel 6.12.30, which the series fits, QEMU and the guest's tools.
fn world() -> (Fixture, Package, Vec<Package>, Vec<Package>) {
    world_in(Fixture::new())
}

fn world_in(fixture: Fixture) -> (Fixture, Package, Vec<Package>, Vec<Package>) {
    let kernel = fixture.kernel(30, "two");
    let (qemu, tools) = (fixture.qemu("11.1.3").to_vec(), fixture.tools("81").to_vec());
    fixture.pin(&kernel, &qemu, &tools);
    (fixture, kernel, qemu, tools)
}

fn archive(fixture: &Fixture, kernels: &[&Package], others: &[&[Package]]) {
    let kernels = kernels.iter().map(|&kernel| kernel.clone());
    fixture.archive(&kernels.chain(others.iter().flat_map(|set| set.iter().cloned())).collect::<Vec<_>>());
}

fn kernel(fixture: &Fixture) -> Ran {
    fixture.harness(&["kernel", "build"])
}

/// The source text from which the kernel was built.
fn image(ran: &Ran) -> String {
    let path = ran.out.lines().find_map(|line| line.strip_prefix("image")).unwrap().trim();
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_pinned_kernel_is_built_although_the_archive_has_a_newer_one() {
    let (fixture, pinned, ..) = world();
    archive(&fixture, &[&fixture.kernel(31, "two"), &pinned], &[]);
    let ran = kernel(&fixture);
    ran.succeeds_with("version  6.12.30").does_not_note("no longer");
    assert!(image(&ran).contains("PATCHED"));
    // A cached kernel does not depend on the archive any more.
    fixture.sources("deb [trusted=yes] file:/nonexistent test main\n");
    let again = kernel(&fixture);
    again.succeeds_with("version  6.12.30");
    assert_eq!(again.err, "", "everything was found in the cache");
    fixture.harness(&["kernel", "build", "--offline"]).succeeds_with("version  6.12.30");
}

#[test]
fn two_machines_with_one_revision_build_the_same_kernel_under_the_same_name() {
    let (fixture, pinned, ..) = world();
    let (other, ..) = world();
    archive(&fixture, &[&pinned], &[]);
    // The other machine's archive has moved on.
    archive(&other, &[&fixture.kernel(40, "two"), &pinned], &[]);
    fs::copy(fixture.path("checkout/harness/pins.toml"), other.path("checkout/harness/pins.toml")).unwrap();
    let name = |ran: &Ran| {
        let path = ran.out.lines().find_map(|line| line.strip_prefix("image")).unwrap().trim().to_owned();
        path.rsplit('/').nth(1).unwrap().to_owned()
    };
    assert_eq!(name(&kernel(&fixture)), name(&kernel(&other)));
}

#[test]
fn a_missing_pin_is_replaced_by_the_newest_that_fits_with_a_note_each_time() {
    let (fixture, pinned, ..) = world();
    archive(&fixture, &[&fixture.kernel(31, "two"), &fixture.kernel(29, "two")], &[]);
    let ran = kernel(&fixture);
    ran.succeeds_with("version  6.12.31");
    ran.notes(&format!(
        "the archive no longer has linux-source-6.12 {}; taking linux-source-6.12 6.12.31-1, the newest that it has",
        pinned.version
    ));
    fixture.sources("deb [trusted=yes] file:/nonexistent test main\n");
    let again = kernel(&fixture);
    again.succeeds_with("version  6.12.31").notes("linux-source-6.12 6.12.31-1 from the cache stands in");
    assert_eq!(again.err.lines().count(), 1, "{}", again.err);
}

#[test]
fn if_the_newest_does_not_fit_an_older_one_is_built_with_its_refresh() {
    let (fixture, ..) = world();
    archive(&fixture, &[&fixture.kernel(31, "rewritten"), &fixture.kernel(12, "old"), &fixture.kernel(11, "old")], &[]);
    let ran = kernel(&fixture);
    ran.succeeds_with("version  6.12.12")
        .notes("taking linux-source-6.12 6.12.12-1, the newest that it has and that fits");
    assert!(image(&ran).contains("REFRESHED"));
}

#[test]
fn if_nothing_fits_the_error_lists_the_attempts_and_a_remedy() {
    let (fixture, pinned, ..) = world();
    archive(&fixture, &[&fixture.kernel(32, "rewritten"), &fixture.kernel(31, "changed")], &[]);
    let ran = kernel(&fixture);
    ran.fails_with(&[
        &format!("the archive no longer has linux-source-6.12 {}, and nothing else in it fits", pinned.version),
        "linux-source-6.12 6.12.32-1: 0001-change.diff does not apply (mm/a.c: hunk #1 FAILED at 1)",
        "linux-source-6.12 6.12.31-1: 0001-change.diff does not apply",
        "--kernel-tree",
        "--plain",
    ]);
    // The error's advice works.
    fixture.harness(&["kernel", "build", "--plain"]).succeeds_with("version  6.12.32");
    let left = fs::read_dir(fixture.path("cache"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".making"));
    assert_eq!(left.count(), 0, "what did not fit is not kept");
}

#[test]
fn an_unreachable_archive_with_an_empty_cache_is_an_error_with_a_remedy() {
    let (fixture, ..) = world();
    for lines in
        ["deb [trusted=yes] file:/nonexistent test main\n", "deb [trusted=yes] http://127.0.0.1:1/ test main\n"]
    {
        fixture.sources(lines);
        let ran = kernel(&fixture);
        ran.fails_with(&["cannot fetch the kernel source (", "check the network", "--kernel-tree"]);
        assert!(ran.err.lines().last().unwrap().starts_with("error: "), "{}", ran.err);
    }
    fixture
        .harness(&["kernel", "build", "--offline"])
        .fails_with(&["kernel source is not in the cache", "without --offline"]);
}

#[test]
fn a_package_whose_hash_is_not_the_pinned_one_is_not_used() {
    let (fixture, pinned, qemu, tools) = world();
    // The archive is consistent, but has a different file of that name and version.
    fixture.archive(&[fixture.kernel(30, "two\nmore")]);
    fixture.pin(&pinned, &qemu, &tools);
    let ran = kernel(&fixture);
    ran.fails_with(&["linux-source-6.12 6.12.30-1 has SHA-256", &pinned.sha256, "is not used", "another mirror"]);
    let sources = fs::read_dir(fixture.path("cache"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("kernel"));
    assert_eq!(sources.count(), 0);
    // The index has the pinned hash, but the file differs: apt refuses it.
    let pinned = fixture.kernel(30, "two");
    fixture.pin(&pinned, &qemu, &tools);
    fixture.archive(&[pinned]);
    let pool = fixture.path("archive/pool/linux-source-6.12_6.12.30-1_amd64.deb");
    let mut bytes = fs::read(&pool).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&pool, bytes).unwrap();
    kernel(&fixture).fails_with(&["cannot fetch the kernel source"]);
}

#[test]
fn an_archive_that_is_not_signed_is_refused() {
    let (fixture, pinned, ..) = world();
    archive(&fixture, &[&pinned], &[]);
    fixture.sources(&format!("deb file:{} test main\n", fixture.path("archive").display()));
    kernel(&fixture).fails_with(&["cannot fetch the kernel source", "not signed"]);
}

#[test]
fn a_kernel_source_can_be_selected_by_name_and_version() {
    let (fixture, pinned, ..) = world();
    archive(&fixture, &[&fixture.kernel(31, "two"), &pinned, &fixture.kernel(12, "old")], &[]);
    let build = |package: &str| fixture.harness(&["kernel", "build", "--kernel-package", package]);
    let ran = build("linux-source-6.12=6.12.12-1");
    assert!(image(ran.succeeds_with("version  6.12.12")).contains("REFRESHED"), "it gets the series");
    build("linux-source-6.12").succeeds_with("version  6.12.31");
    build("linux-source-6.12=6.12.99-1").fails_with(&["no linux-source-6.12 6.12.99-1", "linux-source-6.12=6.12.31-1"]);
    build("linux-source-9.9").fails_with(&["no linux-source-9.9", "linux-source-6.12"]);
    // Without the archive, the newest in the cache is used, and the exact version is cached.
    fixture.sources("deb [trusted=yes] file:/nonexistent test main\n");
    build("linux-source-6.12")
        .succeeds_with("version  6.12.31")
        .notes("taking linux-source-6.12 6.12.31-1 from the cache");
    assert_eq!(build("linux-source-6.12=6.12.12-1").succeeds_with("version  6.12.12").err, "");
}

#[test]
fn the_pinned_qemu_is_fetched_with_its_libraries_and_runs_on_its_own_loader() {
    let (fixture, _, qemu, _) = world();
    let newer = fixture.qemu("11.2.0");
    archive(&fixture, &[], &[&qemu, &newer[..1]]);
    fixture.qemu_version().succeeds_with("QEMU emulator version 11.1.3").does_not_note("no longer");
}

#[test]
fn a_missing_qemu_is_replaced_by_the_newest_that_can_host_the_device() {
    let (fixture, _, pinned, _) = world();
    let [newer, library] = fixture.qemu("11.2.0");
    let [older, _] = fixture.qemu("10.0.9");
    archive(&fixture, &[], &[&[newer.clone(), older.clone(), library.clone()]]);
    let ran = fixture.qemu_version();
    ran.succeeds_with("QEMU emulator version 11.2.0");
    ran.notes(&format!(
        "the archive no longer has qemu-system-x86 {}; taking qemu-system-x86 1:11.2.0-1",
        pinned[0].version
    ));
    // Only a QEMU that is too old is left.
    let (fixture, ..) = world();
    archive(&fixture, &[], &[&[older, library]]);
    fixture.qemu_version().fails_with(&[
        "nothing else in it fits",
        "qemu-system-x86 1:10.0.9-1: it is version 10.0",
        "--qemu",
    ]);
}

#[test]
fn if_a_library_is_missing_the_archive_resolves_the_whole_set_anew() {
    let (fixture, _, qemu, _) = world();
    let newer = fixture.library("1.6-1");
    archive(&fixture, &[], &[&[qemu[0].clone(), newer]]);
    let ran = fixture.qemu_version();
    ran.succeeds_with("QEMU emulator version 11.1.3")
        .notes("the archive no longer has libtiny 1.5-1; taking qemu-system-x86");
}

/// The modules that a kernel loads at boot, in this order.
fn loaded(ran: &Ran) -> Vec<String> {
    let paths = ran.out.lines().filter_map(|line| line.strip_prefix("module"));
    paths.map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
}

const STOCK: &[&str] = &["kernel", "build", "--kernel-distribution", "debian"];

#[test]
fn a_distributions_kernel_is_fetched_as_it_is_with_the_modules_that_a_guest_needs() {
    let (fixture, ..) = world();
    let [pinned, _] = fixture.stock_kernel(30);
    let newer = fixture.stock_kernel(31);
    fixture.pin_stock(&pinned);
    archive(&fixture, &[&pinned], &[&newer]);
    let ran = fixture.harness(STOCK);
    ran.succeeds_with("version  6.12.30+deb13-amd64").does_not_note("no longer");
    assert_eq!(loaded(&ran), ["cxl_port.ko", "cxl_acpi.ko"]);
    let product = ran.out.lines().find_map(|line| line.strip_prefix("config")).unwrap().trim();
    assert_eq!(fs::read_to_string(product).unwrap(), "CONFIG_CXL_ACPI=m\n");
    fixture.sources("deb [trusted=yes] file:/nonexistent test main\n");
    assert_eq!(fixture.harness(STOCK).succeeds_with("version  6.12.30").err, "", "everything was found in the cache");
    fixture.harness(&["kernel", "list"]).succeeds_with("6.12.30+deb13-amd64");
}

#[test]
fn a_distributions_kernel_that_is_gone_is_replaced_by_the_suites_current_one() {
    let (fixture, ..) = world();
    let [pinned, _] = fixture.stock_kernel(30);
    fixture.pin_stock(&pinned);
    archive(&fixture, &[], &[&fixture.stock_kernel(32), &fixture.stock_kernel(31)]);
    let ran = fixture.harness(STOCK);
    ran.succeeds_with("version  6.12.32+deb13-amd64").notes(
        "the archive no longer has linux-image-6.12.30+deb13-amd64 6.12.30-1; taking linux-image-6.12.32+deb13-amd64 6.12.32-1",
    );
    fixture.sources("deb [trusted=yes] file:/nonexistent test main\n");
    fixture.harness(STOCK).succeeds_with("version  6.12.32").notes("from the cache stands in");
}

#[test]
fn pins_show_and_move_know_the_distributions_kernels() {
    let (fixture, kernel, qemu, tools) = world();
    let ([pinned, current], newer) = (fixture.stock_kernel(30), fixture.stock_kernel(31));
    fixture.pin_stock(&pinned);
    archive(&fixture, &[&kernel, &pinned, &current], &[&newer, &qemu, &tools]);
    let shown: serde_json::Value = serde_json::from_str(&fixture.harness(&["pins", "show", "--json"]).out).unwrap();
    let state = shown["pins"].as_array().unwrap().iter().find(|state| state["what"] == "Debian kernel").unwrap();
    assert_eq!((&state["pinned"], &state["newest"]), (&"6.12.30-1".into(), &"6.12.31-1".into()), "{state}");
    let ran = fixture.harness(&["pins", "move", "--dry-run"]);
    ran.succeeds_with("linux-image-6.12.31+deb13-amd64 6.12.31-1: new");
    assert!(ran.out.contains("linux-image-6.12.30+deb13-amd64 6.12.30-1: no longer needed"), "{}", ran.out);
}

#[test]
fn a_pin_file_without_distributions_kernels_is_refused_only_when_one_is_asked_for() {
    let (fixture, pinned, ..) = world();
    archive(&fixture, &[&pinned], &[]);
    kernel(&fixture).succeeds_with("version  6.12.30");
    fixture.harness(STOCK).fails_with(&["it pins no kernel of debian"]);
}

#[test]
fn doctor_and_pins_show_what_is_pinned_cached_and_newest() {
    let (fixture, pinned, qemu, tools) = world();
    archive(&fixture, &[&fixture.kernel(31, "two"), &pinned], &[&qemu, &tools]);
    let states =
        |arguments: &[&str]| -> serde_json::Value { serde_json::from_str(&fixture.harness(arguments).out).unwrap() };
    let kernel_state = |states: &serde_json::Value| {
        states["pins"].as_array().unwrap().iter().find(|state| state["what"] == "kernel source").unwrap().clone()
    };
    let before = kernel_state(&states(&["doctor", "--json"]));
    let expected = |cached: bool, newest: Option<&str>| {
        serde_json::json!({ "what": "kernel source", "package": "linux-source-6.12", "pinned": "6.12.30-1",
            "cached": cached, "newest": newest })
    };
    assert_eq!(before, expected(false, Some("6.12.31-1")));
    assert!(!fixture.path("cache").exists(), "a look makes nothing");
    kernel(&fixture);
    assert_eq!(kernel_state(&states(&["pins", "show", "--json"])), expected(true, Some("6.12.31-1")));
    fixture.sources("deb [trusted=yes] file:/nonexistent test main\n");
    assert_eq!(kernel_state(&states(&["doctor", "--json", "--offline"])), expected(true, None));
}

#[test]
fn pins_check_tries_every_version_and_fails_if_one_does_not_fit() {
    let (fixture, pinned, ..) = world();
    archive(&fixture, &[&pinned, &fixture.kernel(12, "old")], &[]);
    fixture.harness(&["pins", "check"]).succeeds_with("6.12.30-1  fits\nlinux-source-6.12 6.12.12-1  fits\n");
    archive(&fixture, &[&pinned, &fixture.kernel(31, "rewritten")], &[]);
    let ran = fixture.harness(&["pins", "check"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("6.12.31-1  does not fit: 0001-change.diff does not apply (mm/a.c"), "{}", ran.out);
}

#[test]
fn pins_move_dry_run_lists_changes_and_versions_that_do_not_fit() {
    let (fixture, pinned, qemu, tools) = world();
    let newer_qemu = fixture.qemu("11.2.0");
    archive(
        &fixture,
        &[&fixture.kernel(33, "rewritten"), &fixture.kernel(32, "two"), &fixture.kernel(31, "two"), &pinned],
        &[&qemu, &newer_qemu[..1], &tools],
    );
    let before = fixture.pins();
    let ran = fixture.harness(&["pins", "move", "--dry-run"]);
    assert_eq!(ran.code, 1, "one version does not fit: {}", ran.err);
    for line in [
        "linux-source-6.12 6.12.33-1  does not fit: 0001-change.diff does not apply",
        "linux-source-6.12 6.12.32-1  fits",
        "linux-source-6.12 6.12.31-1  fits",
        "linux-source-6.12 6.12.30-1 -> 6.12.32-1",
        "qemu-system-x86 1:11.1.3-1 -> 1:11.2.0-1",
    ] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    assert_eq!(fixture.pins(), before, "--dry-run writes nothing");
    archive(&fixture, &[&pinned], &[&qemu, &tools]);
    fixture.harness(&["pins", "move", "--dry-run"]).succeeds_with("the pins are the newest that fit");
}

#[test]
fn the_error_names_a_damaged_pin_file() {
    let (fixture, ..) = world();
    fs::write(fixture.path("checkout/harness/pins.toml"), "kernel-source = 1\n").unwrap();
    kernel(&fixture).fails_with(&["pins.toml is not a valid pin file", "git checkout"]);
}

#[test]
fn a_program_without_its_checkout_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness"))
        .args(["kernel", "build", "--offline", "--cache-dir"])
        .arg(folder.path().join("cache"))
        .env("CXL_CRAM_WORKSPACE", folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("CXL_CRAM_WORKSPACE names") && error.contains("guest-tests"), "{error}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_cache_may_have_any_name() {
    let long = "long".repeat(50);
    for name in ["a b,c=é'x", "$HOME;`id`", "[x]*?#", "-o", &long] {
        let (fixture, pinned, qemu, _) = world_in(Fixture::with_cache(name));
        archive(&fixture, &[&pinned], &[&qemu]);
        let ran = kernel(&fixture);
        assert!(image(ran.succeeds_with("version  6.12.30")).contains("PATCHED"), "{name}");
        fixture.qemu_version().succeeds_with("QEMU emulator version 11.1.3");
    }
}

#[test]
fn an_unreachable_suite_does_not_count_as_a_missing_pin() {
    let (fixture, pinned, ..) = world();
    let older = fixture.kernel(29, "two");
    archive(&fixture, &[&older], &[]);
    let answering = format!("deb [trusted=yes] file:{} test main\n", fixture.path("archive").display());
    fixture.sources(&format!("{answering}deb [trusted=yes] file:/nonexistent security main\n"));
    let ran = kernel(&fixture);
    ran.fails_with(&["cannot fetch the kernel source", "/nonexistent"]).does_not_note("taking");
    for question in [&["pins", "check"][..], &["pins", "move", "--dry-run"]] {
        fixture.harness(question).fails_with(&["cannot fetch"]);
    }
    // Once it answers, the pin is there.
    archive(&fixture, &[&older, &pinned], &[]);
    kernel(&fixture).succeeds_with("version  6.12.30");
}

#[test]
fn a_substitute_is_replaced_by_the_pin_after_a_day() {
    let (fixture, pinned, ..) = world();
    let older = fixture.kernel(29, "two");
    archive(&fixture, &[&older], &[]);
    kernel(&fixture).succeeds_with("version  6.12.29");
    archive(&fixture, &[&older, &pinned], &[]);
    kernel(&fixture).succeeds_with("version  6.12.29").notes("stands in");
    for record in fs::read_dir(fixture.cache.join("substitutes")).unwrap() {
        let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60);
        fs::File::options().write(true).open(record.unwrap().path()).unwrap().set_modified(yesterday).unwrap();
    }
    kernel(&fixture).succeeds_with("version  6.12.30").does_not_note("stands in");
}

#[test]
fn offline_and_an_archive_without_the_kernel_are_errors() {
    let (fixture, _, qemu, tools) = world();
    archive(&fixture, &[], &[&qemu, &tools]);
    for question in [&["pins", "check"][..], &["pins", "move", "--dry-run"]] {
        fixture.harness(&[question, &["--offline"]].concat()).fails_with(&["with --offline"]);
        fixture.harness(question).fails_with(&["the archive has no linux-source-6.12"]);
    }
    kernel(&fixture).fails_with(&["the archive has no linux-source-6.12", "--kernel-tree"]);
}

#[test]
fn pins_and_sources_must_be_regular_files() {
    let (fixture, pinned, ..) = world();
    archive(&fixture, &[&pinned], &[]);
    let pipe = fixture.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for option in ["--pins", "--apt-sources"] {
        for path in [pipe.to_str().unwrap(), "/dev/zero", "/"] {
            let ran = fixture.harness(&["kernel", "build", option, path]);
            ran.fails_with(&["is not a text file"]);
        }
    }
}
