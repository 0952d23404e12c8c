//! The scenarios of cxl-cram: one file for each, and a line in both lists below.
//!
//! Your own crate looks the same: `guest-tests/example` is one, and docs/scenarios.md explains it.

mod adaptive;
mod bear;
mod codecs;
mod concurrent;
mod cram_bear;
mod cram_cost;
mod cram_demote;
mod cram_hot_remove;
mod cram_interrupts_lost;
mod cram_no_room;
mod cram_poison;
mod cram_pressure;
mod cram_races;
mod cram_read_in_place;
mod cram_rebind;
mod cram_scrub;
mod cram_soak;
mod cram_tiers;
mod cram_two;
mod cram_unplug;
mod cram_writable;
mod cram_write_promotes;
mod cram_zero_fails;
mod cram_zero_late;
mod dax;
mod demotion;
mod device_stopped;
mod device_stopped_long;
mod domain;
mod enumerate;
mod events;
mod firmware;
mod hotplug;
mod integrity;
mod kexec;
mod killed;
mod machine_check;
mod media_operations;
mod mempolicy_sample;
mod migration;
mod mode_switches;
mod online;
mod performance;
mod poison;
mod precommitted;
mod precommitted_locked;
mod private_cpusets;
mod private_isolation;
mod private_lifecycle;
mod private_owners;
mod private_removal;
mod private_services;
mod private_write_protection;
mod protocol_errors;
mod rebind;
mod reboot;
mod region;
mod reset;
mod selftests_cram;
mod selftests_private_nodes;
mod soft_reserved;
mod tiers_follow_cdat;
mod two_devices;
mod two_regions;
mod watermark;

use cxl_cram_lab::prelude::{Catalog, Scenario};

/// The scenarios that `cxl-cram-harness` runs.
pub const CATALOG: Catalog =
    Catalog { program: "cxl-cram-harness", scenarios: SCENARIOS, snapshots: "guest-tests/snapshots" };

const SCENARIOS: &[&Scenario] = &[
    &adaptive::SCENARIO,
    &bear::SCENARIO,
    &codecs::SCENARIO,
    &concurrent::SCENARIO,
    &cram_bear::SCENARIO,
    &cram_cost::SCENARIO,
    &cram_demote::SCENARIO,
    &cram_hot_remove::SCENARIO,
    &cram_interrupts_lost::SCENARIO,
    &cram_no_room::SCENARIO,
    &cram_poison::SCENARIO,
    &cram_pressure::SCENARIO,
    &cram_races::SCENARIO,
    &cram_read_in_place::SCENARIO,
    &cram_rebind::SCENARIO,
    &cram_scrub::SCENARIO,
    &cram_soak::SCENARIO,
    &cram_tiers::SCENARIO,
    &cram_two::SCENARIO,
    &cram_unplug::SCENARIO,
    &cram_writable::SCENARIO,
    &cram_write_promotes::SCENARIO,
    &cram_zero_fails::SCENARIO,
    &cram_zero_late::SCENARIO,
    &dax::SCENARIO,
    &demotion::SCENARIO,
    &device_stopped::SCENARIO,
    &device_stopped_long::SCENARIO,
    &domain::SCENARIO,
    &enumerate::SCENARIO,
    &events::SCENARIO,
    &firmware::SCENARIO,
    &hotplug::SCENARIO,
    &integrity::SCENARIO,
    &kexec::SCENARIO,
    &killed::SCENARIO,
    &machine_check::SCENARIO,
    &media_operations::SCENARIO,
    &mempolicy_sample::SCENARIO,
    &migration::SCENARIO,
    &mode_switches::SCENARIO,
    &online::SCENARIO,
    &performance::SCENARIO,
    &poison::SCENARIO,
    &precommitted::SCENARIO,
    &precommitted_locked::SCENARIO,
    &private_cpusets::SCENARIO,
    &private_isolation::SCENARIO,
    &private_lifecycle::SCENARIO,
    &private_owners::SCENARIO,
    &private_removal::SCENARIO,
    &private_services::SCENARIO,
    &private_write_protection::SCENARIO,
    &protocol_errors::SCENARIO,
    &rebind::SCENARIO,
    &reboot::SCENARIO,
    &region::SCENARIO,
    &reset::SCENARIO,
    &selftests_cram::SCENARIO,
    &selftests_private_nodes::SCENARIO,
    &soft_reserved::SCENARIO,
    &tiers_follow_cdat::SCENARIO,
    &two_devices::SCENARIO,
    &two_regions::SCENARIO,
    &watermark::SCENARIO,
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_is_a_scenario_of_the_same_name() {
        let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
        let names = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
        let names: BTreeSet<_> = names.filter(|name| name != "lib").collect();
        let listed: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name.to_owned()).collect();
        assert_eq!((SCENARIOS.len(), listed), (names.len(), names));
    }
}
