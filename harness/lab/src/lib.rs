//! Boots a guest kernel on the compressed CXL device and holds what the kernel did against snapshots.
//!
//! A crate of scenarios uses the [`prelude`], lists them in a [`Catalog`](lab::catalog::Catalog), and hands that to
//! [`cli::main`]. docs/scenarios.md has an example.
//!
//! One room a subject. Each uses only the rooms listed before it; `tests/rooms.rs` checks that.
//!
//! - [`workspace`]: the checkout, where the sources, patches and pins are.
//! - [`process`]: programs that are started, waited for and ended; Ctrl-C.
//! - [`provision`]: QEMU, the kernel, the guest's program, the corpus: fetched, built and cached.
//! - [`health`]: what is known of a machine's life, shared by all that wait for it.
//! - [`guest`]: what goes into the guest: initramfs, ACPI tables, the agent's channel.
//! - [`machine`]: the QEMU process.
//! - [`rig`]: devices that serve, and a machine to launch on them.
//! - [`record`]: facts, figures, and the course of a run.
//! - [`lab`]: what a scenario is, and what it can do to guest and device.
//! - [`report`]: outcomes, in every format.
//! - [`play`]: scenarios played and held against snapshots.
//! - [`cli`]: the command line.
//!
//! Public items are for the crates of this workspace and for crates of scenarios; before 1.0 any of them may change.

// In the program, not in its tests: what a client, a guest, a file or a flag can cause is an error, not a panic.
#![warn(clippy::unwrap_used, clippy::todo)]

pub use cxl_cram_wire as wire;

pub mod cli;
pub mod guest;
pub mod health;
pub mod lab;
pub mod machine;
pub mod play;
pub mod process;
pub mod provision;
pub mod record;
pub mod report;
pub mod rig;
pub mod workspace;

/// What scenario files use.
pub mod prelude {
    pub use std::time::{Duration, Instant};

    pub use ::serde_json::{self, Value, json};
    pub use anyhow::{Context, Result, anyhow, bail, ensure};
    pub use cxl_cram_device::{
        control::api::{self as control, Status},
        cxl::ras::Uncorrectable,
        hdm::media::PoisonSource,
        store::Codec,
    };
    pub use cxl_cram_kit::size::format_bytes;
    pub use cxl_cram_wire::{
        memory::{Fault, Latencies, Policy, Raced, Request, Way},
        pattern::{Pattern, Verdict},
    };
    pub use serde::{Serialize, de::DeserializeOwned};

    pub use crate::{
        guest::{
            client::GuestError,
            memory::{Churned, Mapping, Memory},
        },
        lab::{
            Lab,
            catalog::Catalog,
            cgroup::Cgroup,
            corpus::corpus_halves,
            cram::{Cram, CramCounts, CramEvent, Tunable},
            need::Need,
            normalise::Varies,
            private_node::{Adapter, Capability, Claim, Notice, WriteFault, errno},
            region::Region,
            scenario::Scenario,
        },
        machine::{config::Domain, decoders::Decoders},
        record::facts::pick,
        rig::{
            device::Device,
            shape::{DeviceShape, MachineShape},
        },
    };
}
