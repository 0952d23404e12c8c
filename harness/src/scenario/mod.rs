//! Scenarios: stories that a guest on the compressed device plays, held against snapshots.
//!
//! A scenario is one file in `guest-tests/scenarios`: what device and machine it wants, and how the story goes. The
//! story is told on a [`Lab`] (guest, device, facts); [`runner`] sets the lab up, watches the console and the clock,
//! and compares the facts with the snapshot; [`report`] shows what came of it.

mod control;
mod corpus;
mod device;
mod device_events;
mod difference;
mod events;
mod facts;
mod follower;
mod lab;
mod need;
mod normalise;
mod recorder;
pub mod report;
pub mod runner;
mod sampler;
mod schedule;
mod snapshot;
mod stage;
mod timeline;
mod watchdog;

use std::{fs::OpenOptions, time::Duration};

pub use crate::machine::config::Domain;
pub use corpus::corpus_halves;
pub use device::{Crossings, Device, DeviceShape, Resident, Status, entry};
pub use device_events::{DeviceEvent, Listener};
pub use events::PoisonList;
pub use facts::{Facts, Figure, pick};
pub use lab::{
    Lab, Region,
    cgroup::Cgroup,
    cram::{Cram, CramCounts, CramEvent, Tunable},
    private_node::{Adapter, Capability, Claim, Notice, WriteFault, errno},
};
pub use need::Need;
pub use normalise::Varies;
pub use schedule::{play_all, usual_memory};
pub use snapshot::Snapshot;
pub use stage::Overrides;
pub(crate) use stage::Stage;
pub use timeline::{Mark, Sample, Timeline};
pub(crate) use watchdog::Watchdog;

/// One scenario.
#[derive(Debug)]
pub struct Scenario {
    /// Its name: the file's, and the snapshot's.
    pub name: &'static str,
    /// What it shows, in one line.
    pub story: &'static str,
    /// What it needs of the guest's kernel. Where that is missing it is skipped, and the reason is said.
    pub needs: &'static [Need],
    /// The devices it plays on.
    pub devices: &'static [DeviceShape],
    /// The machine it plays on.
    pub machine: MachineShape,
    /// How long the whole of it may take.
    pub limit: Duration,
    /// Played only when it is asked for by its whole name, or all are: it takes minutes.
    pub by_name: bool,
    /// The story.
    pub tell: fn(&mut Lab) -> anyhow::Result<()>,
}

impl Scenario {
    /// One device and one machine of the usual kind, no needs, a minute: what a scenario does not say.
    pub const USUAL: Self = Self {
        name: "",
        story: "",
        needs: &[],
        devices: &[DeviceShape::USUAL],
        machine: MachineShape::USUAL,
        limit: Duration::from_secs(60),
        by_name: false,
        tell: |_| anyhow::bail!("the scenario has no story: set `tell`"),
    };
}

/// What a scenario asks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineShape {
    /// Ordinary memory, MiB.
    pub memory_mib: u64,
    /// Processors.
    pub processors: u32,
    /// Whether the corpus (256 MiB of real data) is attached, as /dev/vda.
    pub corpus: bool,
    /// The proximity domains that the firmware gives the windows of the first devices; usually none, and Linux makes
    /// them up.
    pub domains: &'static [Domain],
    /// A disk that the guest may write, MiB: the next of /dev/vda, /dev/vdb.
    pub scratch_mib: Option<u64>,
    /// Whether the guest may restart. Otherwise a restart ends the machine.
    pub restarts: bool,
    /// Whether poison that the guest loads raises a machine check.
    pub machine_checks: bool,
    /// Added to the kernel's command line.
    pub append: &'static str,
    /// Parts of console lines that are no trouble in this story.
    pub expected: &'static [&'static str],
}

impl MachineShape {
    /// 1 GiB, two processors, nothing else.
    pub const USUAL: Self = Self {
        memory_mib: 1024,
        processors: 2,
        corpus: false,
        domains: &[],
        scratch_mib: None,
        restarts: false,
        machine_checks: false,
        append: "",
        expected: &[],
    };
}

/// The scenario files.
pub mod catalog {
    include!(concat!(env!("OUT_DIR"), "/catalog.rs"));
}
pub use catalog::CATALOG;

/// Why no guest can be played with here, if so: what a scenario cannot do without and the machine lacks.
pub fn obstacle() -> Option<String> {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => None,
        Err(error) => {
            Some(format!("/dev/fuse cannot be opened ({error}): load the fuse module and allow this user to use it"))
        }
    }
}

/// What scenario files use.
pub mod prelude {
    pub use std::time::{Duration, Instant};

    pub use crate::guest::client::GuestError;
    pub use crate::guest::memory::{Churned, Fault, Latencies, Mapping, Memory, Policy, Raced, Request, Way};
    pub use anyhow::{Context, Result, anyhow, bail, ensure};
    pub use cxl_cram_device::size::format_bytes;
    pub use cxl_cram_guest::pattern::{Pattern, Verdict};
    pub use serde_json::{Value, json};

    pub use super::{
        Adapter, Capability, Cgroup, Claim, Cram, CramCounts, CramEvent, Device, DeviceEvent, DeviceShape, Domain, Lab,
        MachineShape, Need, Notice, Region, Scenario, Status, Tunable, Varies, WriteFault, corpus_halves, errno, pick,
    };
}
