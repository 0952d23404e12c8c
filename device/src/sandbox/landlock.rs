//! Landlock: no path, no port, and no process outside.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope,
};

/// The newest rules; an older kernel applies those that it has.
const NEWEST: ABI = ABI::V10;

/// Takes every path from the calling thread and those it starts; TCP, UDP, abstract sockets of other processes and signals
/// to them as well, where the kernel has rules for them. False if it has no Landlock.
pub(super) fn restrict() -> Result<bool, RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        // A rule would allow something.
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io, thread};

    use super::*;

    /// What a thread that Landlock alone confines is refused. None: the kernel has no Landlock.
    fn confined<T>(try_it: impl FnOnce() -> io::Result<T> + Send + 'static) -> Option<io::ErrorKind> {
        let confined = thread::spawn(|| restrict().unwrap().then(|| try_it().err().map(|error| error.kind())));
        confined.join().unwrap().map(|refused| refused.expect("refused"))
    }

    #[test]
    fn files_are_out_of_reach_without_the_filters_too_and_for_the_confined_thread_alone() {
        assert!(confined(|| File::open("/")).is_none_or(|error| error == io::ErrorKind::PermissionDenied));
        assert!(File::open("/").is_ok());
    }
}
