//! A scenario: the devices and the machine it needs, and its steps on a [`Lab`].

use std::time::Duration;

use super::Lab;
use super::need::Need;
use crate::rig::shape::{DeviceShape, MachineShape};

/// One scenario.
#[derive(Debug)]
pub struct Scenario {
    /// Its name, which is also the name of the file and of the snapshot.
    pub name: &'static str,
    /// What it shows, in one line.
    pub story: &'static str,
    /// What it needs from the guest's kernel. If a need is not met, the scenario is skipped with that reason.
    pub needs: &'static [Need],
    /// The devices it runs on.
    pub devices: &'static [DeviceShape],
    /// The machine it runs on.
    pub machine: MachineShape,
    /// Time limit for the whole scenario.
    pub limit: Duration,
    /// Runs only by its exact name or with `--all`, because it takes minutes.
    pub by_name: bool,
    /// The steps.
    pub run: fn(&mut Lab) -> anyhow::Result<()>,
}

impl Scenario {
    /// The defaults: one device and one machine of the usual kind, no needs, a minute.
    pub const USUAL: Self = Self {
        name: "",
        story: "",
        needs: &[],
        devices: &[DeviceShape::USUAL],
        machine: MachineShape::USUAL,
        limit: Duration::from_secs(60),
        by_name: false,
        run: |_| anyhow::bail!("the scenario has no steps; set `run`"),
    };
}
