//! Standard output, which may be closed or full; neither is a reason to panic.

use std::{
    fmt,
    io::{self, Write},
    sync::OnceLock,
};

/// The first write error.
static TROUBLE: OnceLock<io::Error> = OnceLock::new();

/// Prints a line. Keeps the first error for [`trouble`] and goes on.
pub(super) fn line(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        let _ = TROUBLE.set(error);
    }
}

/// Why something could not be printed. A reader that closed the pipe, as `head` does, is no error.
pub(super) fn trouble() -> Option<&'static io::Error> {
    TROUBLE.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// `println!` that does not panic.
macro_rules! outln {
    ($($text:tt)*) => { $crate::cli::out::line(format_args!($($text)*)) };
}
pub(super) use outln;
