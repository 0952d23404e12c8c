//! The guest's program: built static from this workspace, so that it needs nothing in the initramfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cache::{Cache, Key, files_below, list};
use super::elf::is_static;
use super::error::{IoContext, ProvisionError};
use super::progress::Step;
use super::run::{Limits, new_log, run};
use super::workspace;

const PROGRAM: &str = "cxl-cram-guest";
const OBJECTS: &str = "guest-program-objects";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Raise when the way it is built changes.
const RECIPE: &[u8] = b"2";
/// Crates that a whole build compiles, roughly: the bar's hundred per cent.
const ROUGH_CRATES: u64 = 30;
const LIMITS: Limits = Limits::minutes(60, 15);

/// The key of the program: a hash over everything in the workspace that it is built from.
pub(super) fn key() -> Result<Key, ProvisionError> {
    let room = workspace().join("guest-tests");
    let mut sources = files_below(&room.join("src"))?;
    sources.extend(list(&room)?.into_iter().filter(|path| path.is_file()));
    sources.extend(["Cargo.toml", "Cargo.lock"].map(|name| workspace().join(name)));
    let mut inputs = vec![("recipe".to_owned(), RECIPE.to_vec())];
    for path in sources {
        let name = path.strip_prefix(workspace()).unwrap_or(&path).to_string_lossy().into_owned();
        inputs.push((name, fs::read(&path).context("read", &path)?));
    }
    Ok(Key::of(&inputs.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>()))
}

/// The program in a finished product.
pub(super) fn in_product(product: &Path) -> PathBuf {
    product.join(PROGRAM)
}

/// Builds the program into a product.
pub(super) fn make(cache: &Cache, offline: bool, product: &Path, step: &mut Step) -> Result<(), ProvisionError> {
    let log = cache.log("guest-program")?;
    new_log(&log)?;
    // Not the workspace's own target folder: the cargo that may be running us holds its lock.
    let _lock = cache.lock(OBJECTS, Duration::from_secs(60 * 60))?;
    // A folder for each workspace: cargo would take what another one built later for this one's.
    let workspace_key = Key::of(&[("workspace", workspace().as_os_str().as_encoded_bytes())]);
    let target = cache.scratch(OBJECTS)?.join(workspace_key.to_string());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args(["build", "--locked", "--release", "--target", TARGET]);
    cargo.args(["--package", PROGRAM, "--bin", PROGRAM, "--target-dir"]).arg(&target);
    if offline {
        cargo.arg("--offline");
    }
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    // Every byte is unpacked in each boot: the symbols stay for backtraces, the line tables do not.
    cargo.envs([("CARGO_PROFILE_RELEASE_DEBUG", "none"), ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")]);
    step.phase("building", ROUGH_CRATES);
    run("building the guest program", &mut cargo, &log, LIMITS, |line| {
        step.advance(u64::from(line.trim_start().starts_with("Compiling ")), line.trim());
    })?;
    let built = target.join(TARGET).join("release").join(PROGRAM);
    if !is_static(&built)? {
        return Err(ProvisionError::Elf { path: built, why: "it is not static".into() });
    }
    fs::copy(&built, in_product(product)).context("copy", &built)?;
    Ok(())
}
