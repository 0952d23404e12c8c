//! Ctrl-C: ends every program that was started. The code that waits for one then returns in the ordinary way, and removes
//! its folders, mounts and half-made products.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::{Signal, pidfd_send_signal};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// Exit code of a program that was interrupted, as shells have it.
pub const EXIT_CODE: u8 = 130;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static PROCESSES: Mutex<Vec<(Weak<OwnedFd>, Signal)>> = Mutex::new(Vec::new());

/// Makes SIGINT, SIGTERM and SIGHUP interrupt, instead of ending this program at once.
///
/// # Errors
/// The signals cannot be handled, or the process has too many threads.
pub fn install() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in &mut signals {
            INTERRUPTED.store(true, Ordering::SeqCst);
            for (process, signal) in processes().iter() {
                end(process, *signal);
            }
        }
    })?;
    Ok(())
}

/// Whether such a signal has arrived.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Sends `signal` to this process on an interruption, or now if it has happened, for as long as its pidfd is held.
pub(crate) fn also_ends(process: &Arc<OwnedFd>, signal: Signal) {
    let process = Arc::downgrade(process);
    let mut processes = processes();
    processes.retain(|(process, _)| process.strong_count() > 0);
    // Under the lock: the signal thread either finds it in the list or has set the flag before.
    if interrupted() {
        end(&process, signal);
    }
    processes.push((process, signal));
}

fn processes() -> MutexGuard<'static, Vec<(Weak<OwnedFd>, Signal)>> {
    PROCESSES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(process: &Weak<OwnedFd>, signal: Signal) {
    if let Some(process) = process.upgrade() {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&*process, signal);
    }
}
