//! Programs tied to the harness's life.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{Mutex, PoisonError},
    thread,
};

use crossbeam_channel::{Sender, bounded, unbounded};
use rustix::process::{Signal, set_parent_process_death_signal};

type Order = (Command, Sender<io::Result<Child>>);

/// The way to the thread that starts programs. It is started for the first of them.
static SPAWNER: Mutex<Option<Sender<Order>>> = Mutex::new(None);

/// Starts a program that receives `signal` from the kernel when the harness dies, however it dies.
///
/// The kernel ties a child to the *thread* that started it (prctl(2), `PR_SET_PDEATHSIG`), so one thread that lives as
/// long as the harness starts them all.
///
/// # Errors
/// The program cannot be started, or the process has too many threads.
pub(crate) fn spawn(mut command: Command, signal: Signal) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(signal))?;
            // The harness may have died before the signal was set.
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
    let (reply, answer) = bounded(1);
    let lost = || io::Error::other("the thread that starts programs has ended");
    spawner()?.send((command, reply)).map_err(|_| lost())?;
    answer.recv().map_err(|_| lost())?
}

fn spawner() -> io::Result<Sender<Order>> {
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(orders) = &*spawner {
        return Ok(orders.clone());
    }
    let (orders, inbox) = unbounded::<Order>();
    thread::Builder::new().name("spawner".into()).spawn(move || {
        for (mut command, reply) in inbox {
            // If the caller no longer waits, the child ends with the handle that is dropped here.
            let _: Result<(), _> = reply.send(command.spawn());
        }
    })?;
    *spawner = Some(orders.clone());
    Ok(orders)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Stdio};

    use super::*;

    #[test]
    fn a_program_outlives_the_thread_that_asked_for_it() {
        let mut sleeper = Command::new("sleep");
        sleeper.arg("600").stdin(Stdio::null());
        let mut child = thread::spawn(|| spawn(sleeper, Signal::KILL)).join().unwrap().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }

    #[test]
    fn a_program_that_cannot_be_started_is_an_error() {
        assert_eq!(
            spawn(Command::new("/nonexistent/program"), Signal::KILL).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
