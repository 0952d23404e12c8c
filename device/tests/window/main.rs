//! The FUSE window from outside. Without `/dev/fuse` its tests are ignored, not passed: hence a harness that can decide
//! so when it starts.

#![allow(clippy::unwrap_used, reason = "tests")]

mod ahead;
mod contained;
mod fuse;
mod kill;
mod serving;
mod support;
mod traces;

use std::{fs::File, process::ExitCode};

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if support::client_process() || kill::server_process() || kill::busy_server_process() {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let no_fuse = File::options().read(true).write(true).open("/dev/fuse").err();
    if let Some(error) = &no_fuse {
        eprintln!("/dev/fuse cannot be opened ({error}): the tests that need it are ignored");
    }
    let trials = |room: &str, tests: &[(&str, fn())], ignored: bool| -> Vec<Trial> {
        let trial = |&(name, test): &(&str, fn())| {
            let run = move || {
                test();
                Ok(())
            };
            Trial::test(format!("{room}::{name}"), run).with_ignored_flag(ignored)
        };
        tests.iter().map(trial).collect()
    };
    let trials = [
        trials("fuse", fuse::TESTS, no_fuse.is_some()),
        trials("fuse", fuse::TESTS_WITHOUT_FUSE, false),
        trials("contained", contained::TESTS, no_fuse.is_some()),
        trials("ahead", ahead::TESTS, no_fuse.is_some()),
        trials("kill", kill::TESTS, no_fuse.is_some()),
        trials("serving", serving::TESTS, no_fuse.is_some()),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
