//! Refuses what no device could be, before anything is made.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::args::ServeArgs;
use crate::{
    cxl::cdat::{Cdat, Performance},
    hdm::media::Watermarks,
    shape,
    store::Codec,
};

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
        self.table()?;
        if let Some(control) = &self.control {
            ensure!(
                !same(&self.socket, control),
                "--socket and --control name the same path, {}; give each its own",
                control.display(),
            );
        }
        Ok(())
    }

    /// The CDAT that the device serves.
    pub(super) fn table(&self) -> Result<Cdat> {
        let Some(path) = &self.cdat else {
            let usual = Performance::default();
            let latency = self.latency.unwrap_or(usual.latency_ns());
            let bandwidth = self.bandwidth.unwrap_or(usual.bandwidth_mbs());
            return Ok(Cdat::new(self.capacity, &Performance::new(latency, bandwidth)?));
        };
        let bytes = read(path).with_context(|| format!("cannot read --cdat {}", path.display()))?;
        Cdat::parse(&bytes).with_context(|| format!("--cdat {} is no CDAT", path.display()))
    }

    /// Both watermarks.
    pub(super) fn watermarks(&self) -> Watermarks {
        Watermarks { low: self.low_watermark, high: self.high_watermark }
    }
}

/// A file, or as much of it as shows that it is too long.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe could keep the server waiting, a device never end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(Cdat::MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
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
