//! The selftests of a kernel tree, one program at a time, on a guest that has what they want.
//!
//! [`selftests`](super::selftests) is for scenarios that play those of this project's series.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cxl_cram_wire::protocol::{Exit, Program};

use super::{LIMIT, Lab};
use crate::guest::client::GuestError;
use crate::guest::program::Next;
use crate::process::interrupt::interrupted;
use crate::provision::KSELFTESTS_IN_GUEST;
use crate::record::timeline::Timeline;

/// How often a wait for a test looks for an interruption.
const LOOK: Duration = Duration::from_secs(1);
/// How long a killed test may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(20);
const SIGKILL: i32 = 9;
/// Swap space, MiB before compression.
const SWAP_MIB: u64 = 256;
/// What tests expect of any machine. None of it has to succeed: a test that needs it says so itself.
const USUAL_MACHINE: &str = "\
    grep -q ' /sys/fs/cgroup cgroup2 ' /proc/mounts || { mkdir -p /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; }
    mkdir -p /dev/shm; grep -q ' /dev/shm ' /proc/mounts || mount -t tmpfs none /dev/shm
    [ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
    echo 64 > /proc/sys/vm/nr_hugepages
    true";
/// Puts the tests on a disk: the guest's root, an initramfs, has neither temporary files without a name nor a page cache that can
/// be written back. A kernel without this file system plays them where they are.
const ON_DISK: &str = "mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && cp -a";
/// What a collection of selftests sees of the first device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceAs {
    /// A node of movable memory.
    Node,
    /// `/dev/dax0.0`.
    Dax,
    /// A memory device without a region.
    Bare,
}

impl DeviceAs {
    /// What this collection sees.
    pub(crate) fn of(collection: &str) -> Self {
        match collection {
            "cxl" => Self::Bare,
            "dax" => Self::Dax,
            _ => Self::Node,
        }
    }
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestEnd {
    /// By itself.
    Exited(Exit),
    /// Killed at its limit.
    Late,
    /// Not even when killed.
    Stuck,
}

impl Lab {
    /// Gives selftests what they want: the device, swap space, huge pages, file systems. Returns the device's node, if it is one.
    pub(crate) fn prepare_selftests(&mut self, device: DeviceAs) -> Result<Option<u32>> {
        self.step("prepare the guest");
        let mut node = None;
        if device != DeviceAs::Bare {
            let region = self.create_region_on(0)?;
            if device == DeviceAs::Node {
                self.online_node(region.node)?;
                node = Some(region.node);
            } else {
                self.give_dax(&region.dax, "device_dax")?;
            }
        }
        self.sh(USUAL_MACHINE)?;
        self.sh(&format!("{ON_DISK} {KSELFTESTS_IN_GUEST} /mnt/ || true"))?;
        if self.holds("test -e /sys/block/zram0/disksize")? {
            self.swap_on_zram(SWAP_MIB)?;
        }
        Ok(node)
    }

    /// Plays a test of a collection: a shell line, run in its folder. Output goes to `heard` by lines. Memory comes from a node
    /// first, if one is given.
    ///
    /// # Errors
    /// The machine died.
    pub(crate) fn play_selftest(
        &mut self,
        collection: &str,
        line: &str,
        node: Option<u32>,
        limit: Duration,
        mut heard: impl FnMut(&str),
    ) -> Result<TestEnd> {
        let policy = node.map(|node| format!("numactl --preferred={node} ")).unwrap_or_default();
        // A program writes to a pipe in blocks, and a killed one would take its last words along.
        let script = format!(
            "cd /mnt/kselftests/{collection} 2>/dev/null || cd {KSELFTESTS_IN_GUEST}/{collection} || exit 1\n\
             if [ -x /usr/bin/stdbuf ]; then exec {policy}stdbuf -oL {line} 2>&1; else exec {policy}{line} 2>&1; fi"
        );
        let mut program = self.guest.spawn(Program::new(["sh", "-c", &script]))?;
        program.close_stdin()?;
        let end = Instant::now() + self.guest.patient(limit);
        loop {
            ensure!(!interrupted(), "interrupted");
            let left = end.saturating_duration_since(Instant::now());
            match program.next(left.min(LOOK)) {
                Ok(Next::Line(_, line)) if !left.is_zero() => heard(&line),
                Ok(Next::Exited(exit)) => return Ok(TestEnd::Exited(exit)),
                Err(GuestError::TimedOut { .. }) if !left.is_zero() => {}
                // A test that prints without end is late, too.
                Ok(Next::Line(..)) | Err(GuestError::TimedOut { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // It may have ended just now.
        let _ = program.signal(SIGKILL);
        let ended = program.wait(KILL_LIMIT);
        match ended {
            Ok(_) => {
                // What it left behind in process groups of its own.
                const KILL: &str = "for process in /proc/[0-9]*; do case \"$(readlink $process/exe)\" in */kselftests/*) \
                                    kill -9 \"${process#/proc/}\";; esac; done; true";
                self.guest.run(&["sh", "-c", KILL], LIMIT)?;
                Ok(TestEnd::Late)
            }
            Err(GuestError::TimedOut { .. }) => Ok(TestEnd::Stuck),
            Err(error) => Err(error).context("killing the test"),
        }
    }

    /// What was recorded since the last call, or since the guest was launched.
    pub(crate) fn next_recording(&mut self) -> Timeline {
        let recorded = std::mem::take(&mut self.recorder).finish();
        self.devices.iter().for_each(|device| self.recorder.watch(device.control()));
        recorded
    }
}
