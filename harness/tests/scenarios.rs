//! Every scenario of the catalog as a test of its own, for `cargo test` and `cargo nextest`.

use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use cxl_cram_harness::{
    provision::{Options, Progress, Provisioned, provision},
    scenario::{
        CATALOG, entry, obstacle,
        report::Verdict,
        runner::{self, RunOptions},
    },
};
use indicatif::MultiProgress;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    if let Some(code) = entry() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // A guest has two processors, and so have the machines this must run on: one scenario at a time.
    arguments.test_threads = Some(1);

    let obstacle = obstacle();
    if let (Some(obstacle), false) = (&obstacle, arguments.list) {
        println!("skipping the guest scenarios: {obstacle}");
    }
    let provisioned = Arc::new(OnceLock::new());
    let trials = CATALOG
        .iter()
        .map(|scenario| {
            let provisioned = Arc::clone(&provisioned);
            Trial::test(scenario.name, move || {
                let provisioned: &Result<Provisioned, String> = provisioned.get_or_init(|| {
                    provision(&Options::default(), &Progress::stderr()).map_err(|error| error.to_string())
                });
                let provisioned = provisioned.as_ref().map_err(|error| Failed::from(error.clone()))?;
                let outcome = runner::play(scenario, provisioned, &RunOptions::default(), &MultiProgress::new());
                match &outcome.verdict {
                    Verdict::Failed(reason) => Err(Failed::from(reason.clone())),
                    Verdict::Passed | Verdict::Skipped(_) => {
                        println!("{}", outcome.line());
                        Ok(())
                    }
                }
            })
            .with_ignored_flag(obstacle.is_some() || scenario.by_name)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
