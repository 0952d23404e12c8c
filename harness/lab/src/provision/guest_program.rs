//! Builds the guest program from this workspace, static, so that it needs nothing else in the initramfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cache::{Cache, Key, Scratch, files_below, list};
use super::elf::is_static;
use super::error::{IoContext, ProvisionError};
use crate::process::run::{Limits, new_log, run};
use cxl_cram_kit::progress::Step;

const PROGRAM: &str = "cxl-cram-guest";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The workspace's packages with its sources.
const PACKAGES: [&str; 2] = ["guest-tests/agent", "guest-tests/wire"];
/// Raise when the way it is built changes.
const RECIPE: &[u8] = b"2";
/// Rough number of crates in a full build, for the progress bar.
const ROUGH_CRATES: u64 = 30;
const LIMITS: Limits = Limits::minutes(60, 15);

/// The key of the program: a hash of all its sources in the workspace.
pub(super) fn key(workspace: &Path) -> Result<Key, ProvisionError> {
    let mut sources = Vec::new();
    for package in PACKAGES.map(|package| workspace.join(package)) {
        sources.extend(files_below(&package.join("src"))?);
        sources.extend(list(&package)?.into_iter().filter(|path| path.is_file()));
    }
    sources.extend(["Cargo.toml", "Cargo.lock"].map(|name| workspace.join(name)));
    let mut inputs = vec![("recipe".to_owned(), RECIPE.to_vec())];
    for path in sources {
        let name = path.strip_prefix(workspace).unwrap_or(&path).to_string_lossy().into_owned();
        inputs.push((name, fs::read(&path).context("read", &path)?));
    }
    Ok(Key::of(&inputs.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>()))
}

/// The path of the program in a finished product.
pub(super) fn in_product(product: &Path) -> PathBuf {
    product.join(PROGRAM)
}

/// Builds the program into a product.
pub(super) fn make(
    cache: &Cache,
    workspace: &Path,
    offline: bool,
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let log = cache.log("guest-program")?;
    new_log(&log)?;
    // Not the workspace's own target folder, which may be locked by a cargo that runs us.
    let _lock = cache.lock(&Scratch::GuestProgramObjects.name(), Duration::from_secs(60 * 60))?;
    // A folder for each workspace, because cargo would take another one's newer objects for this one's.
    let workspace_key = Key::of(&[("workspace", workspace.as_os_str().as_encoded_bytes())]);
    let target = cache.scratch(Scratch::GuestProgramObjects)?.join(workspace_key.to_string());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(["build", "--locked", "--release", "--target", TARGET]);
    cargo.args(["--package", PROGRAM, "--bin", PROGRAM, "--target-dir"]).arg(&target);
    if offline {
        cargo.arg("--offline");
    }
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    // Every boot unpacks every byte: keep symbols for backtraces, but no line tables.
    cargo.envs([("CARGO_PROFILE_RELEASE_DEBUG", "none"), ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")]);
    step.phase("building", ROUGH_CRATES);
    run("building the guest program", cargo, &log, LIMITS, |line| {
        step.advance(u64::from(line.trim_start().starts_with("Compiling ")), line.trim());
    })?;
    let built = target.join(TARGET).join("release").join(PROGRAM);
    if !is_static(&built)? {
        return Err(ProvisionError::Elf { path: built, why: "it is not statically linked".into() });
    }
    fs::copy(&built, in_product(product)).context("copy", &built)?;
    Ok(())
}
