//! The virtio-serial port: found by name, read without end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const CLASS: &str = "/sys/class/virtio-ports";
const POLL: Duration = Duration::from_millis(5);
/// Polling interval for a port whose host side is not connected.
const HOST_POLL: Duration = Duration::from_millis(20);

/// The device node of the port with this name. Waits for it, since its driver may still be probing.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] if there is no such port within `limit`.
pub(super) fn find(name: &str, limit: Duration) -> io::Result<PathBuf> {
    let end = Instant::now() + limit;
    loop {
        if let Some(port) = lookup(Path::new(CLASS), name) {
            return Ok(Path::new("/dev").join(port));
        }
        if Instant::now() >= end {
            let message = format!("add a virtserialport named {name} to the machine: there is none");
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        thread::sleep(POLL);
    }
}

fn lookup(class: &Path, name: &str) -> Option<std::ffi::OsString> {
    fs::read_dir(class).ok()?.flatten().find_map(|entry| {
        let found = fs::read_to_string(entry.path().join("name")).ok()?;
        (found.trim_end() == name).then(|| entry.file_name())
    })
}

/// Reads a port. While the host side is not connected, the driver returns end of file, so the reader waits.
pub(super) struct Reader(File);

impl Reader {
    pub(super) fn new(port: File) -> Self {
        Self(port)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Ok(0) => thread::sleep(HOST_POLL),
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_name() {
        let class = std::env::temp_dir().join(format!("cxl-cram-ports-{}", std::process::id()));
        for (port, name) in [("vport0p1", "other\n"), ("vport0p2", "wanted\n")] {
            fs::create_dir_all(class.join(port)).unwrap();
            fs::write(class.join(port).join("name"), name).unwrap();
        }
        assert_eq!(lookup(&class, "wanted").unwrap(), "vport0p2");
        assert_eq!(lookup(&class, "want"), None);
        fs::remove_dir_all(&class).unwrap();
    }
}
