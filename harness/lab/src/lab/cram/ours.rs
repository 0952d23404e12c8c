//! The series of guest-tests/kernel/series/cram: `mm/cram.c` and the driver `cxl_cram`
//! (Documentation/mm/cram.rst of the patched kernel).

use anyhow::Result;
use cxl_cram_wire::protocol::ON_DEMAND_DIR;

use super::{Adapter, CramCounts, CramEvent, DriverCounts, Tunable, numbers};
use crate::lab::events;

const MODULE: &str = "cxl_cram";

/// This project's series.
pub(super) struct Ours;

impl Adapter for Ours {
    fn probe(&self) -> String {
        format!("test -e {ON_DEMAND_DIR}/{MODULE}.ko && grep -q ' cram_register$' /proc/kallsyms")
    }

    fn module(&self) -> &'static str {
        MODULE
    }

    fn bound_device(&self, memdev: &str) -> String {
        format!("/sys/bus/cxl/devices/{memdev}/cxl_core.vcap-*")
    }

    fn driver_folder(&self) -> &'static str {
        "/sys/bus/auxiliary/drivers/cxl_cram.*"
    }

    fn autoprobe_file(&self) -> &'static str {
        "/sys/bus/auxiliary/drivers_autoprobe"
    }

    fn counts_file(&self, node: u32) -> String {
        format!("/sys/kernel/debug/cram/node{node}/stats")
    }

    fn counts(&self, text: &str) -> Result<CramCounts> {
        numbers(text)
    }

    fn driver_file(&self, memdev: &str) -> String {
        format!("/sys/kernel/debug/cxl_cram/{memdev}/stats")
    }

    fn driver_counts(&self, text: &str) -> Result<DriverCounts> {
        numbers(text)
    }

    fn tunable_file(&self, node: u32, memdev: &str, tunable: Tunable) -> String {
        let name = match tunable {
            // Only the driver sets it. Tests have a file of their own.
            Tunable::Pressure => return format!("/sys/kernel/debug/cram/node{node}/pressure"),
            Tunable::OccupancyInterval => return format!("/sys/kernel/debug/cxl_cram/{memdev}/occupancy_interval_ms"),
            Tunable::WritablePermille => "writable_permille",
            Tunable::ScrubBatch => "scrub_batch",
            Tunable::ScrubInterval => "scrub_interval_ms",
        };
        format!("/sys/kernel/mm/cram/node{node}/{name}")
    }

    fn event(&self, event: CramEvent) -> &'static str {
        match event {
            CramEvent::Demote => "cram:cram_demote",
            CramEvent::Promote => "cram:cram_promote",
            CramEvent::Refuse => "cram:cram_refuse",
            CramEvent::Scrub => "cram:cram_scrub",
            CramEvent::Pressure => "cram:cram_pressure",
            CramEvent::Poison => "cram:cram_poison",
        }
    }

    fn pressure_change(&self, line: &str, node: u32) -> Option<[u64; 2]> {
        let fields = events::fields(line.split_once(" cram_pressure: ")?.1);
        let number = |key: &str| fields.get(key)?.as_str()?.parse::<u64>().ok();
        (number("nid")? == u64::from(node)).then_some([number("old")?, number("new")?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pressure_change_counts_for_its_node_only() {
        let line = "  irq/33-cxl_cram-98 [001] d..1. 7.512345: cram_pressure: nid=1 old=0 new=1000";
        assert_eq!(Ours.pressure_change(line, 1), Some([0, 1000]));
        assert_eq!(Ours.pressure_change(line, 2), None);
        assert_eq!(Ours.pressure_change("kswapd1-41 [000] 7.6: cram_refuse: nid=1 pressure=1000 nr=1", 1), None);
    }
}
