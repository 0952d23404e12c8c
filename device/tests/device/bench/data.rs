//! The program, and inputs made for it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cxl_cram_device::bench::report::Report;
use tempfile::TempDir;

pub(crate) const PAGE: usize = 4096;

/// `cxl-cram-device bench` with these flags and nothing on standard input.
pub(crate) fn bench(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxl-cram-device"));
    command.arg("bench").args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it over a file.
pub(crate) fn over(path: &Path, flags: &[&str]) -> Output {
    bench(flags).arg(path).output().unwrap()
}

/// The report of a run, whatever its exit code.
pub(crate) fn report(output: &Output) -> Report {
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: no report, but {stderr}"))
}

/// What it said on standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file of these bytes, and what keeps it there.
pub(crate) fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}

/// Bytes that no codec shrinks.
pub(crate) fn noise(pages: usize) -> Vec<u8> {
    let mut state = 0x5eed_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..pages * PAGE / 8).flat_map(|_| word()).collect()
}

/// Lines that shrink to about a quarter.
pub(crate) fn text(pages: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut number = 1_u64;
    while text.len() < pages * PAGE {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        writeln!(text, "node 1: demoted {} pages, {} left", number >> 52, number >> 40 & 0xfff).unwrap();
    }
    text.truncate(pages * PAGE);
    text
}

/// A 64-bit little-endian core dump with these segments, each of whole pages.
pub(crate) fn core(segments: &[&[u8]]) -> Vec<u8> {
    let mut core = b"\x7fELF\x02\x01\x01".to_vec();
    core.resize(16, 0);
    core.extend(4_u16.to_le_bytes()); // ET_CORE
    core.extend(62_u16.to_le_bytes()); // EM_X86_64
    core.extend(1_u32.to_le_bytes());
    core.extend([0; 8]); // entry
    core.extend(64_u64.to_le_bytes()); // program headers
    core.extend([0; 8 + 4]); // section headers, flags
    for field in [64_u16, 56, segments.len() as u16 + 1, 64, 0, 0] {
        core.extend(field.to_le_bytes());
    }
    // A note that is no memory, then the segments.
    let mut header = |kind: u32, offset: u64, size: u64| {
        core.extend(kind.to_le_bytes());
        core.extend(6_u32.to_le_bytes());
        for field in [offset, offset, offset, size, size, PAGE as u64] {
            core.extend(field.to_le_bytes());
        }
    };
    header(4, 0, 64);
    let mut offset = PAGE as u64;
    for segment in segments {
        header(1, offset, segment.len() as u64);
        offset += segment.len() as u64;
    }
    core.resize(PAGE, 0xa5);
    segments.iter().for_each(|segment| core.extend(*segment));
    core
}
