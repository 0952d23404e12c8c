//! The user's terminal as the guest's console: what is typed goes to QEMU's standard input, what the guest says is
//! copied to standard output as it comes, besides being watched and written to the log.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Stdout, Write},
    process::Stdio,
    sync::Arc,
};

/// A console that people type on. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Terminal {
    keys: Arc<PipeReader>,
}

impl Terminal {
    /// A console, and where to write what is typed.
    ///
    /// # Errors
    /// There is no pipe to be had.
    pub fn new() -> io::Result<(Self, PipeWriter)> {
        let (keys, typed) = io::pipe()?;
        Ok((Self { keys: Arc::new(keys) }, typed))
    }

    /// What QEMU reads.
    pub(super) fn input(&self) -> io::Result<Stdio> {
        Ok(self.keys.try_clone()?.into())
    }
}

/// A console's output, copied to standard output as it is read.
pub(super) struct Shown<R> {
    console: R,
    screen: Stdout,
}

impl<R> Shown<R> {
    pub(super) fn new(console: R) -> Self {
        Self { console, screen: io::stdout() }
    }
}

impl<R: Read> Read for Shown<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.console.read(buffer)?;
        // A terminal that is gone must not keep the log from being written.
        let _ = self.screen.write_all(&buffer[..read]).and_then(|()| self.screen.flush());
        Ok(read)
    }
}
