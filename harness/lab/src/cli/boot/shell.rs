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
use cxl_cram_wire::protocol::Program;
use rustix::{
    process::{Signal, pidfd_send_signal},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};
use signal_hook::{consts::SIGWINCH, iterator::Signals};

use super::keyboard::{END, Keyboard};
use super::{LONG, exit_code};
use crate::guest::client::{Guest, GuestError, SHORT};
use crate::guest::program::{Next, Spawned};
use crate::machine::launch::Launched;
use crate::rig::device::Device;

/// The guest's console, which also shows the kernel's messages.
const CONSOLE: &str = "/dev/ttyS0";
/// Polling interval once the guest's agent no longer answers.
const POLL: Duration = Duration::from_millis(100);

/// Runs a shell on the user's terminal and returns its exit code.
pub(super) fn shell(launched: &Launched, devices: &[Device], keys: PipeWriter) -> Result<ExitCode> {
    let guest = &launched.guest;
    eprint!("{}", banner(devices));
    // Only a session leader gets a controlling terminal, and with it Ctrl-C.
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
    let thread = |name: &str| thread::Builder::new().name(name.into());
    thread("keyboard").spawn(move || forward_keys(keys, &process, &leaves)).context("cannot read the keyboard")?;
    let resized = guest.clone();
    let mut signals = Signals::new([SIGWINCH]).context("cannot watch the terminal's size")?;
    let watching = signals.handle();
    let watch = move || signals.forever().for_each(|_| resize(&resized));
    thread("window-size").spawn(watch).context("cannot watch the terminal's size")?;
    let code = wait(&mut shell, launched);
    watching.close();
    Ok(if left.load(Ordering::Relaxed) { ExitCode::SUCCESS } else { code })
}

/// The hints above the prompt.
fn banner(devices: &[Device]) -> String {
    let mut text = String::from("a shell in the guest\n");
    for device in devices {
        text.push_str(&format!("  control socket:  {} (QMP, on the host)\n", device.control().display()));
    }
    text.push_str("  make a region:   cxl create-region -d decoder0.0 -m mem0 -t ram\n");
    text.push_str("  power off:       exit or Ctrl-D; Ctrl-A x ends the guest at once\n");
    text
}

/// Waits until the shell or the machine ends. Leaves a kernel in trouble running, for the user to look at.
fn wait(shell: &mut Spawned, launched: &Launched) -> ExitCode {
    loop {
        match shell.next(LONG) {
            Ok(Next::Exited(exit)) => return exit_code(exit),
            Ok(Next::Line(..)) | Err(GuestError::TimedOut { .. }) => {}
            // The machine ended, perhaps by `poweroff`.
            Err(_) => match launched.machine.health().wait_exit(POLL) {
                Some(exit) if exit.status.success() => return ExitCode::SUCCESS,
                Some(_) => return ExitCode::FAILURE,
                None => {}
            },
        }
    }
}

/// Passes keys on until the guest is gone or the user ends it.
fn forward_keys(mut keys: PipeWriter, process: &OwnedFd, left: &AtomicBool) {
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
            // The guest is gone; `wait` notices its end.
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

/// The terminal's size in stty's format; empty without a terminal.
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

/// A terminal in raw mode; restored on drop.
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
