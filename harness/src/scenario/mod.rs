//! Scenarios, normalising, snapshots, reports.
