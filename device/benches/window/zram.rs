//! The same traces on anonymous memory that is swapped to zram: lz4, and a memory cgroup as large as the cache. One child
//! process a trace, which joins the cgroup before it fills its pages. Needs root, and for these seconds the system has
//! 64 MiB more swap.

use std::{
    ffi::CString,
    fs, io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use memmap2::MmapMut;
use rustix::fs::{FileType, Mode};

use super::{PAGE, fill, load, timed, traces};

/// A child's cgroup directory.
pub(super) const CHILD: &str = "CXL_CRAM_BENCH_ZRAM";
/// The trace it runs.
const TRACE: &str = "CXL_CRAM_BENCH_TRACE";

const SIZE: u64 = 64 << 20;

/// Page tables of the child, and what the kernel charges ahead.
const OVERHEAD: u64 = 512 << 10;

/// A zram device of our own that is swapped to, and a cgroup. Undone on drop.
pub(super) struct Zram {
    number: String,
    /// Holds the node: where there is no udev, /dev has none.
    directory: tempfile::TempDir,
    cgroup: PathBuf,
    limit: &'static str,
    swapped_to: bool,
}

impl Zram {
    /// None of it, with the reason, if the machine has no zram or does not allow it.
    pub(super) fn new() -> Result<Self, String> {
        let said = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v2 = Path::new("/sys/fs/cgroup");
        let (parent, limit) = if v1.join("memory.limit_in_bytes").exists() {
            (v1, "memory.limit_in_bytes")
        } else if fs::read_to_string(v2.join("cgroup.subtree_control")).is_ok_and(|list| list.contains("memory")) {
            (v2, "memory.max")
        } else {
            return Err("no memory cgroup".into());
        };
        let directory = tempfile::tempdir().map_err(said("directory"))?;
        let cgroup = parent.join(format!("cxl-cram-bench-{}", std::process::id()));
        fs::create_dir(&cgroup).map_err(said("cgroup"))?;
        // Reading hot_add makes a device and names it.
        let number = fs::read_to_string("/sys/class/zram-control/hot_add").map_err(said("zram")).inspect_err(|_| {
            let _ = fs::remove_dir(&cgroup);
        })?;
        let mut zram = Self { number: number.trim().into(), directory, cgroup, limit, swapped_to: false };
        zram.start().map_err(said("zram"))?;
        Ok(zram)
    }

    fn sysfs(&self) -> PathBuf {
        format!("/sys/block/zram{}", self.number).into()
    }

    fn node(&self) -> PathBuf {
        self.directory.path().join("zram")
    }

    fn start(&mut self) -> io::Result<()> {
        fs::write(self.sysfs().join("comp_algorithm"), "lz4")?;
        fs::write(self.sysfs().join("disksize"), SIZE.to_string())?;
        let device = fs::read_to_string(self.sysfs().join("dev"))?;
        let (major, minor) = device.trim().split_once(':').unwrap();
        let device = rustix::fs::makedev(major.parse().unwrap(), minor.parse().unwrap());
        rustix::fs::mknodat(rustix::fs::CWD, self.node(), FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)?;
        // `union swap_header`: version 1 and the last page after the boot block, the signature at the end of the page.
        let mut header = vec![0; PAGE];
        header[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
        header[1028..1032].copy_from_slice(&((SIZE / PAGE as u64 - 1) as u32).to_ne_bytes());
        header[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
        fs::write(self.node(), &header)?;
        let path = CString::new(self.node().to_str().unwrap()).unwrap();
        // SAFETY: a string that ends in zero, which the call does not keep.
        match unsafe { libc::swapon(path.as_ptr(), 0) } {
            0 => self.swapped_to = true,
            _ => return Err(io::Error::last_os_error()),
        }
        Ok(())
    }

    /// A trace with this much memory: pages swapped in, and time. The kernel kills the child now and then, when a reclaim of so
    /// little memory makes no progress; then it is started again.
    pub(super) fn run(&self, cache: u64, trace: &str) -> (u64, Duration) {
        fs::write(self.cgroup.join(self.limit), (cache + OVERHEAD).to_string()).unwrap();
        loop {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let output = command.env(CHILD, &self.cgroup).env(TRACE, trace).output().unwrap();
            let numbers = String::from_utf8_lossy(&output.stdout);
            match numbers.trim().split_once(' ') {
                Some((faults, time)) => {
                    return (faults.parse().unwrap(), Duration::from_nanos(time.parse().unwrap()));
                }
                None => assert_eq!(output.status.signal(), Some(libc::SIGKILL), "{output:?}"),
            }
        }
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        if self.swapped_to {
            let path = CString::new(self.node().to_str().unwrap()).unwrap();
            // SAFETY: as for swapon.
            unsafe { libc::swapoff(path.as_ptr()) };
        }
        let _ = fs::write(self.sysfs().join("reset"), "1");
        let _ = fs::write("/sys/class/zram-control/hot_remove", &self.number);
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// The child.
pub(super) fn child(cgroup: &Path) {
    let name = std::env::var(TRACE).unwrap();
    let trace = traces::traces().into_iter().find(|(other, _)| *other == name).unwrap().1;
    fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    let mut memory = MmapMut::map_anon(traces::PAGES * PAGE).unwrap();
    fill(&mut memory);
    let before = swapped_in();
    let time = timed(|| load(&memory, trace.iter().copied()));
    println!("{} {}", swapped_in() - before, time.as_nanos());
}

fn swapped_in() -> u64 {
    // SAFETY: all-zero bytes are a valid rusage, and the kernel writes one into it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    usage.ru_majflt as u64
}
