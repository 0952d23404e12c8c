//! Attaches the user's terminal to the guest's console.
//!
//! Keys go to QEMU's standard input. Console output is copied to standard output as it arrives, and is still watched and
//! logged.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Stdout, Write},
    process::Stdio,
    sync::Arc,
};

/// A terminal for the guest's console. Clones share it.
#[derive(Clone, Debug)]
pub struct Terminal {
    keys: Arc<PipeReader>,
}

impl Terminal {
    /// A terminal, and the pipe to write its keys to.
    ///
    /// # Errors
    /// The pipe cannot be created.
    pub fn new() -> io::Result<(Self, PipeWriter)> {
        let (keys, typed) = io::pipe()?;
        Ok((Self { keys: Arc::new(keys) }, typed))
    }

    /// QEMU's standard input.
    pub(super) fn input(&self) -> io::Result<Stdio> {
        Ok(self.keys.try_clone()?.into())
    }
}

/// A reader of the console that copies everything read to standard output.
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
        // A closed terminal must not stop the log.
        let _ = self.screen.write_all(&buffer[..read]).and_then(|()| self.screen.flush());
        Ok(read)
    }
}
