//! Where the window is mounted: a private directory that is removed again, by its own path and nothing else's.

use std::{
    ffi::OsString,
    fs, io,
    mem::ManuallyDrop,
    os::unix::{
        ffi::OsStringExt,
        fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    io::Errno,
    mount::{UnmountFlags, unmount},
    process::{Pid, test_kill_process},
};

/// Directory names are this, the process id and a number.
const PREFIX: &str = "cxl-cram-window";

/// The source the mount table shows.
pub(super) const SOURCE: &str = "cxl-cram";

/// A private directory, unmounted and removed on drop.
#[derive(Debug)]
pub(super) struct MountPoint {
    path: PathBuf,
}

impl MountPoint {
    /// Makes a directory that did not exist before, open to this user alone.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 10_000 => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The device that is mounted here.
    pub(super) fn device(&self) -> io::Result<u64> {
        mounted_device(&self.path)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the mount table does not have it"))
    }

    /// Where it is. From now on the guardian unmounts and removes it.
    pub(super) fn leave_to_guardian(self) -> PathBuf {
        std::mem::take(&mut ManuallyDrop::new(self).path)
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if matches!(mounted_device(&self.path), Ok(Some(_))) {
            detach(&self.path);
        }
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::warn!(%error, "cannot remove {}", self.path.display());
        }
    }
}

/// Takes a mount out of the tree at once, also while it is in use.
fn detach(path: &Path) {
    if unmount(path, UnmountFlags::DETACH) == Err(Errno::PERM) {
        // The helper that mounted for an unprivileged user also unmounts.
        let _ = Command::new("fusermount3").args(["-u", "-z", "-q", "--"]).arg(path).status();
    }
}

/// Lets the guest dirty as much of the window as it likes: by default the kernel allows one FUSE mount so little that it
/// slows down every store.
pub(super) fn lift_dirty_limits(device: u64) -> io::Result<()> {
    let bdi = format!("/sys/class/bdi/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    fs::write(format!("{bdi}/strict_limit"), "0")?;
    fs::write(format!("{bdi}/max_ratio"), "100")
}

/// Removes what servers that were killed left behind: directories of our name and user, of a process that is gone, with
/// nothing mounted or a mount of ours whose server is proven dead.
pub(super) fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry.file_name().to_str().is_some_and(is_of_dead_process) {
            continue;
        }
        // Asks the server, if there is one: attributes may come from a cache.
        let dead = rustix::fs::statfs(&path).is_err_and(|error| error == Errno::NOTCONN);
        if dead && matches!(mounted_device(&path), Ok(Some(_))) {
            detach(&path);
        }
        let user = rustix::process::getuid().as_raw();
        if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user) {
            continue;
        }
        // Only ever removes an empty directory.
        if fs::remove_dir(&path).is_ok() {
            tracing::info!("removed {}, left behind by a server that was killed", path.display());
        }
    }
}

fn is_of_dead_process(name: &str) -> bool {
    let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')?.split('-').next()) else {
        return false;
    };
    let Some(pid) = pid.parse().ok().filter(|&pid: &i32| pid > 0).and_then(Pid::from_raw) else { return false };
    test_kill_process(pid) == Err(Errno::SRCH)
}

/// The device of our mount at a path, from the mount table: asks the file system itself nothing, it may be dead.
fn mounted_device(path: &Path) -> io::Result<Option<u64>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().rev().find_map(|line| parse_mount(line, path)))
}

/// `36 35 0:40 / /mnt rw,... shared:1 - fuse SOURCE rw,...` (proc(5)).
fn parse_mount(line: &str, path: &Path) -> Option<u64> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let (major, minor) = left.next()?.split_once(':')?;
    let at = left.nth(1)?;
    let mut right = right.split(' ');
    let ours = right.next()?.starts_with("fuse") && right.next()? == SOURCE && unescaped(at) == path;
    ours.then_some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// A path of the mount table, which writes blanks, line ends and backslashes as `\040`: three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, more @ ..] = rest {
        let escaped = more.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[3..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_ours_only_with_our_source_at_our_very_path() {
        let ours = "36 35 0:40 / /t/cxl-cram-window-7-0 rw,nosuid - fuse cxl-cram rw,user_id=0";
        let path = Path::new("/t/cxl-cram-window-7-0");
        assert_eq!(parse_mount(ours, path), Some(rustix::fs::makedev(0, 40)));
        assert_eq!(parse_mount(ours, Path::new("/t/cxl-cram-window-7-1")), None);
        assert_eq!(parse_mount(&ours.replace("fuse cxl-cram", "fuse sshfs"), path), None);
        assert_eq!(parse_mount(&ours.replace("fuse cxl-cram", "tmpfs cxl-cram"), path), None);
        let blank = ours.replace("/t/", r"/a\040b\134/");
        assert_eq!(parse_mount(&blank, Path::new(r"/a b\/cxl-cram-window-7-0")), Some(rustix::fs::makedev(0, 40)));
    }

    #[test]
    fn a_directory_of_a_living_process_or_another_name_is_not_stale() {
        assert!(!is_of_dead_process(&format!("{PREFIX}-{}-0", std::process::id())));
        for name in ["cxl-cram-window-", "cxl-cram-window--1-0", "cxl-cram-window-0-0", "cxl-cram-window-x-0", "else"] {
            assert!(!is_of_dead_process(name), "{name}");
        }
        assert!(is_of_dead_process(&format!("{PREFIX}-{}-0", i32::MAX)));
    }
}
