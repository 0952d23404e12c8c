//! As `device_stopped`, for as long as a person looks at a debugger.

use cxl_cram_lab::prelude::*;

use super::device_stopped::{SHAPES, stop_for};

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "device_stopped_long",
    story: "as device_stopped, for 40 s: longer than the guest's own watchdogs wait",
    devices: SHAPES,
    // A processor of the guest that waits for the device looks stuck to the other.
    machine: MachineShape { append: "rcupdate.rcu_cpu_stall_suppress=1 nosoftlockup", ..MachineShape::USUAL },
    limit: Duration::from_secs(240),
    by_name: true,
    run: |lab| stop_for(lab, Duration::from_secs(40)),
    ..Scenario::USUAL
};
