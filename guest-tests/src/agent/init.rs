//! Process 1: mounts the kernel's file systems, starts the agent, reaps.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

/// How the console line begins that tells of the agent's death. The harness looks for it.
pub const DIED: &str = "cxl-cram: the agent died";

/// Source, target and type of what is mounted, in this order.
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

/// Is process 1 of the guest. Comes back only if it could not even begin.
///
/// # Errors
/// The agent could not be started.
pub fn init() -> io::Result<Infallible> {
    for (source, target, fstype) in MOUNTS {
        // A kernel without one of them still boots; what needs it says so when it is asked for.
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
                say(&format!("{DIED}: {}", code.or(signal).unwrap_or_default()));
                power_off()?;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Mounts, making the target first.
pub(super) fn mount_at(source: &str, target: &Path, fstype: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let options = std::ffi::CString::new(options)?;
    Ok(mount(source, target, fstype, flags, Some(options.as_c_str()))?)
}

/// Switches the guest off.
pub(super) fn power_off() -> io::Result<()> {
    rustix::fs::sync();
    Ok(reboot(RebootCommand::PowerOff)?)
}

/// Restarts the guest.
pub(super) fn restart() -> io::Result<()> {
    rustix::fs::sync();
    Ok(reboot(RebootCommand::Restart)?)
}

/// Says a line on the console, by way of the kernel's log where there is one.
fn say(line: &str) {
    // One write is one record.
    let record = format!("<2>{line}\n");
    let said = super::kernel_log().and_then(|mut log| log.write_all(record.as_bytes()));
    if said.is_err() {
        eprintln!("{line}");
    }
}
