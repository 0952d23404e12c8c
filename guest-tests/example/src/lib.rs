//! Scenarios of one's own, with their own snapshots and the lab's command line: `cargo run -p cxl-cram-example -- run`.

mod zeros;

use cxl_cram_lab::prelude::Catalog;

/// The scenarios of this program.
pub const CATALOG: Catalog = Catalog {
    program: "cxl-cram-example",
    scenarios: &[&zeros::SCENARIO],
    snapshots: concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"),
};
