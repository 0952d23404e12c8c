//! Process 1: mounts the kernel's file systems, starts the agent, and reaps processes.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use cxl_cram_wire::protocol::DIED;
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

/// Source, target and type of each mount, in order.
const MOUNTS: [(&str, &str, &str); 9] = [
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("devpts", "/dev/pts", "devpts"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("tmpfs", "/run", "tmpfs"),
    ("debugfs", "/sys/kernel/debug", "debugfs"),
    ("tracefs", "/sys/kernel/tracing", "tracefs"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2"),
];

/// Runs as process 1 of the guest. Returns only on an error at the start.
///
/// # Errors
/// The agent cannot be started.
pub fn init() -> io::Result<Infallible> {
    for (source, target, fstype) in MOUNTS {
        // A kernel without one of them still boots; programs that need it report that later.
        if let Err(error) = mount_at(source, Path::new(target), fstype, MountFlags::empty(), "") {
            eprintln!("cxl-cram: mount {target}: {error}");
        }
    }
    let agent = Command::new(env::current_exe()?)
        .arg("agent")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .spawn()?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_pid().cast_unsigned() == agent.id() => {
                let code = status.exit_status().map(|code| format!("exit code {code}"));
                let signal = status.terminating_signal().map(|signal| format!("signal {signal}"));
                log(&format!("{DIED}: {}", code.or(signal).unwrap_or_default()));
                power_off()?;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Mounts a file system, creating the target first.
pub(super) fn mount_at(source: &str, target: &Path, fstype: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let options = CString::new(options)?;
    Ok(mount(source, target, fstype, flags, Some(options.as_c_str()))?)
}

/// Powers the guest off.
pub(super) fn power_off() -> io::Result<()> {
    rustix::fs::sync();
    Ok(reboot(RebootCommand::PowerOff)?)
}

/// Restarts the guest.
pub(super) fn restart() -> io::Result<()> {
    rustix::fs::sync();
    Ok(reboot(RebootCommand::Restart)?)
}

/// Loads a kernel, which [`jump`] starts.
pub(super) fn load_kernel(kernel: &Path, initrd: &Path, append: &str) -> io::Result<()> {
    let (kernel, initrd) = (fs::File::open(kernel)?, fs::File::open(initrd)?);
    let append = CString::new(append)?;
    let length = append.as_bytes_with_nul().len();
    // SAFETY: the descriptors are open, and `length` bytes are readable at the command line's address.
    let loaded = unsafe {
        libc::syscall(libc::SYS_kexec_file_load, kernel.as_raw_fd(), initrd.as_raw_fd(), length, append.as_ptr(), 0)
    };
    if loaded == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts the kernel that was loaded.
pub(super) fn jump() -> io::Result<()> {
    rustix::fs::sync();
    Ok(reboot(RebootCommand::Kexec)?)
}

/// Writes a line to the console, through the kernel's log if there is one.
fn log(line: &str) {
    // One write is one record.
    let record = format!("<2>{line}\n");
    let logged = super::kernel_log().and_then(|mut log| log.write_all(record.as_bytes()));
    if logged.is_err() {
        eprintln!("{line}");
    }
}
