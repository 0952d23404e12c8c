//! The series of guest-tests/kernel/series/cram: `mm/cram.c` and the driver `cxl_cram`
//! (Documentation/mm/cram.rst of the patched kernel).

use anyhow::Result;
use cxl_cram_guest::agent::ON_DEMAND_DIR;

use super::{Adapter, CramCounts, CramEvent, DriverCounts, Tunable, numbers};

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
            Tunable::Pressure => "pressure",
            Tunable::WritablePermille => "writable_permille",
            Tunable::ScrubBatch => "scrub_batch",
            Tunable::ScrubInterval => "scrub_interval_ms",
            Tunable::OccupancyInterval => return format!("/sys/kernel/debug/cxl_cram/{memdev}/occupancy_interval_ms"),
        };
        format!("/sys/kernel/debug/cram/node{node}/{name}")
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
}
