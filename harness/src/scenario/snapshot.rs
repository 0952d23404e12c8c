//! Facts against the accepted snapshot, the insta way: a difference leaves a `.snap.new` for `cargo insta review`.

use std::{
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use super::facts::Facts;

/// Where snapshots are kept: beside the scenarios.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-tests/snapshots");

/// Compares facts with the scenario's snapshot. insta prints the difference; the error says what to do about it.
pub(super) fn check(scenario: &str, story: &str, facts: &Facts) -> Result<(), String> {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(FOLDER));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_description(story);
    // insta's assertion panics on a difference; here that is a verdict, not a crash.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let outcome =
        panic::catch_unwind(AssertUnwindSafe(|| settings.bind(|| insta::assert_yaml_snapshot!(scenario, facts))));
    panic::set_hook(hook);
    outcome.map_err(|_| "the facts differ from the snapshot: `cargo insta review` shows and accepts".to_owned())
}
