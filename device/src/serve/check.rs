//! Refuses what no device could be, before anything is made.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::args::ServeArgs;
use crate::{hdm::media::Watermarks, shape, store::Codec};

impl ServeArgs {
    /// Refuses arguments that do not go together, and sizes that no device has.
    pub fn check(&self) -> Result<()> {
        shape::check(self.capacity, self.physical())?;
        self.watermarks().check(self.physical())?;
        ensure!(
            self.recompress_cpu.is_none() || matches!(self.codec, Codec::Adaptive(_)),
            "--recompress-cpu needs --codec adaptive: {} recompresses nothing",
            self.codec,
        );
        if let Some(control) = &self.control {
            ensure!(
                !same(&self.socket, control),
                "--socket and --control name the same path, {}; give each its own",
                control.display(),
            );
        }
        Ok(())
    }

    /// Both watermarks.
    pub(super) fn watermarks(&self) -> Watermarks {
        Watermarks { low: self.low_watermark, high: self.high_watermark }
    }
}

/// Whether both would be the same entry of the same directory, whether there is one yet or not.
fn same(one: &Path, other: &Path) -> bool {
    entry(one) == entry(other)
}

/// The path with its directory resolved. Its last part is not: a link there is what the socket's name would replace.
fn entry(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(directory)), Some(name)) => directory.join(name),
        _ => path,
    }
}
