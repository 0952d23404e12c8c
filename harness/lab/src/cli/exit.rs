//! Exit codes: the one place that decides them.
//!
//! `git bisect run` takes 1 to 127 for a bad commit, but 125 for one that cannot be tested: a fault of this machine must
//! not count against the kernel.

use std::process::ExitCode;

use console::style;
use thiserror::Error;

use crate::play::preflight::PreflightError;
use crate::process::interrupt;
use crate::report::Record;

/// The command line asks for something impossible; clap's own errors have the same code.
const REFUSED: u8 = 2;
/// The exit code of timeout(1).
pub(super) const LATE: u8 = 124;
/// Makes `git bisect run` skip a commit.
pub(super) const CANNOT_TEST: u8 = 125;

/// Why a command ends with an exit code of its own. Other errors end it with 1.
#[derive(Debug, Error)]
#[error("{0:#}")]
pub(super) enum Ended {
    /// The command line asks for something impossible.
    Refused(anyhow::Error),
    /// This machine cannot run the test.
    CannotTest(anyhow::Error),
}

impl Ended {
    /// This machine is at fault.
    pub(super) fn cannot_test(error: impl Into<anyhow::Error>) -> Self {
        Self::CannotTest(error.into())
    }

    /// The command line is at fault.
    pub(super) fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self::Refused(error.into())
    }

    /// A check before the start failed.
    pub(super) fn preflight(error: PreflightError) -> Self {
        if error.host_at_fault() { Self::cannot_test(error) } else { Self::refused(error) }
    }
}

/// The exit code of a run whose results are in `record`. A failed result decides it, before a report that could not be written.
pub(super) fn of_record(record: &Record, written: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    if let Err(error) = written {
        if !record.failed() {
            return Err(Ended::cannot_test(error).into());
        }
        eprintln!("{} {error:#}", style("error:").red().bold().for_stderr());
    }
    Ok(match (record.failed(), record.host_at_fault()) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => CANNOT_TEST.into(),
        (true, false) => ExitCode::FAILURE,
    })
}

/// Prints why a command failed, and returns its exit code. A failure after an interruption is not reported as an error.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    let (label, code) = match error.downcast_ref() {
        Some(Ended::Refused(_)) => ("error:", REFUSED.into()),
        Some(Ended::CannotTest(_)) => ("cannot test:", CANNOT_TEST.into()),
        None => ("error:", ExitCode::FAILURE),
    };
    if interrupt::interrupted() {
        eprintln!("interrupted");
    } else {
        eprintln!("{} {error:#}", style(label).red().bold().for_stderr());
    }
    code
}
