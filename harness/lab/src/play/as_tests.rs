//! A catalog's scenarios as tests, for `cargo test` and `cargo nextest`.

use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use indicatif::MultiProgress;
use libtest_mimic::{Arguments, Failed, Trial};

use super::runner::{self, RunOptions};
use super::snapshot;
use crate::{
    lab::catalog::Catalog,
    provision::{Options, Progress, Provisioned, provision},
    report::Verdict,
    rig::{device::entry, obstacle},
};

/// Runs each scenario as a test: the `main` of a test target with `harness = false`. Ignores scenarios that run only by
/// exact name, and all scenarios on a machine that cannot run a guest.
pub fn main(catalog: &Catalog) -> ExitCode {
    if let Some(code) = entry() {
        return code;
    }
    // SAFETY: no other thread runs yet.
    unsafe { snapshot::keep_insta_from_panicking() };
    let mut arguments = Arguments::from_args();
    // A guest has two processors, and so do the smallest machines that run this: one scenario at a time.
    arguments.test_threads = Some(1);

    let obstacle = obstacle();
    if let (Some(obstacle), false) = (&obstacle, arguments.list) {
        println!("skipping the guest scenarios: {obstacle}");
    }
    let options = Arc::new(RunOptions::new(catalog));
    let provisioned = Arc::new(OnceLock::new());
    let trials = catalog
        .scenarios
        .iter()
        .map(|scenario| {
            let (provisioned, options) = (Arc::clone(&provisioned), Arc::clone(&options));
            Trial::test(scenario.name, move || {
                let provisioned: &Result<Provisioned, String> = provisioned.get_or_init(|| {
                    provision(&Options::default(), &Progress::stderr()).map_err(|error| error.to_string())
                });
                let provisioned = provisioned.as_ref().map_err(|error| Failed::from(error.clone()))?;
                let outcome = runner::play(scenario, provisioned, &options, &MultiProgress::new());
                match &outcome.verdict {
                    Verdict::Failed(reason) => Err(Failed::from(reason.clone())),
                    Verdict::Interrupted => Err(Failed::from("interrupted")),
                    Verdict::Passed | Verdict::Skipped(_) => {
                        println!("{}", outcome.line(None));
                        Ok(())
                    }
                }
            })
            .with_ignored_flag(obstacle.is_some() || scenario.by_name)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
