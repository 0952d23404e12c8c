//! A shell on the guest's console, in the user's terminal.

use std::{
    io::{self, PipeWriter, Read, Write},
    os::fd::OwnedFd,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use cxl_cram_guest::protocol::Program;
use rustix::{
    process::{Signal, pidfd_send_signal},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};
use signal_hook::{consts::SIGWINCH, iterator::Signals};

use super::{
    LONG, exit_code,
    keyboard::{END, Keyboard},
};
use crate::{
    guest::{
        client::{Guest, GuestError, SHORT},
        program::{Next, Spawned},
    },
    machine::launch::Launched,
};

/// The guest's console. The kernel's messages come there too.
const CONSOLE: &str = "/dev/ttyS0";
/// Between two looks at a guest that can no longer be waited for.
const POLL: Duration = Duration::from_millis(100);

/// Gives the guest to the user until the shell ends, and returns its exit code.
pub(super) fn shell(launched: &Launched, keys: PipeWriter) -> Result<ExitCode> {
    let guest = &launched.guest;
    eprintln!("a shell in the guest; its end (exit, Ctrl-D) switches the guest off, Ctrl-A x ends it at once");
    // The shell must lead a session to have a terminal of its own, and with it Ctrl-C.
    let line = format!("exec <{CONSOLE} >{CONSOLE} 2>&1; stty sane {}; setsid -c sh -l; exit $?", size());
    let env = [
        ("TERM", std::env::var("TERM").unwrap_or_else(|_| "vt100".into())),
        ("PS1", r"[guest \w]# ".into()),
        ("HISTFILE", "/dev/null".into()),
    ];
    let program = Program {
        env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        cwd: Some("/root".into()),
        ..Program::new(["sh", "-c", &line])
    };
    let mut shell = guest.spawn(program).context("cannot start a shell in the guest")?;
    let _raw = Raw::set();
    let (process, left) = (launched.machine.process().handle(), Arc::new(AtomicBool::new(false)));
    let leaves = Arc::clone(&left);
    thread::spawn(move || type_on(keys, &process, &leaves));
    let resized = guest.clone();
    let mut signals = Signals::new([SIGWINCH]).context("cannot watch the window's size")?;
    let watching = signals.handle();
    thread::spawn(move || signals.forever().for_each(|_| resize(&resized)));
    let code = wait(&mut shell, launched);
    watching.close();
    Ok(if left.load(Ordering::Relaxed) { ExitCode::SUCCESS } else { code })
}

/// Waits for the shell's end or the machine's. A kernel that is in trouble is left to the user for as long as it runs.
fn wait(shell: &mut Spawned, launched: &Launched) -> ExitCode {
    loop {
        match shell.next(LONG) {
            Ok(Next::Exited(exit)) => return exit_code(exit),
            Ok(Next::Line(..)) | Err(GuestError::TimedOut { .. }) => {}
            // The machine's end; `poweroff` is one too.
            Err(_) => match launched.machine.health().wait_exit(POLL) {
                Some(exit) if exit.status.success() => return ExitCode::SUCCESS,
                Some(_) => return ExitCode::FAILURE,
                None => {}
            },
        }
    }
}

/// Passes on what is typed until the guest is gone or the user has had enough of it.
fn type_on(mut keys: PipeWriter, process: &OwnedFd, left: &AtomicBool) {
    let mut keyboard = Keyboard::default();
    let mut typed = [0; 4096];
    let mut stdin = io::stdin().lock();
    loop {
        let passed = match stdin.read(&mut typed) {
            Ok(0) => Some(vec![END]),
            Ok(count) => keyboard.typed(&typed[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let ended = passed.as_deref() == Some(&[END]) && !isatty(io::stdin());
        match passed {
            // A guest that is gone reads nothing, and its shell's end is noticed elsewhere.
            Some(bytes) if keys.write_all(&bytes).is_err() || ended => return,
            Some(_) => {}
            None => {
                left.store(true, Ordering::Relaxed);
                let _ = pidfd_send_signal(process, Signal::KILL);
                return;
            }
        }
    }
}

/// The window's size, as stty takes it; nothing where there is no window.
fn size() -> String {
    tcgetwinsize(io::stdout())
        .ok()
        .filter(|size| size.ws_row > 0 && size.ws_col > 0)
        .map(|size| format!("rows {} cols {}", size.ws_row, size.ws_col))
        .unwrap_or_default()
}

fn resize(guest: &Guest) {
    let _ = guest.run(&["sh", "-c", &format!("stty -F {CONSOLE} {}", size())], SHORT);
}

/// A terminal that passes every key on as it is, and becomes what it was when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    /// Standard input, if it is a terminal.
    fn set() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(mut raw) = before.clone() {
            raw.make_raw();
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}
