//! Generates completions and manual pages from a command line's definition, so that they always match it.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result};
pub use clap_complete::Shell;
use clap_complete::generate;

/// The completions of a program for a shell.
pub fn completions(shell: Shell, mut command: clap::Command) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    if shell != Shell::Bash {
        generate(shell, &mut command, name, &mut script);
        return script;
    }
    // clap_complete 4.6 encodes a `-` in the program's name differently where it recognises a command and where it lists
    // that command's options, so nothing is completed after a command. Without a `-` they agree, and only the lines that
    // register the function need the real name.
    let plain = name.replace('-', "_");
    generate(shell, &mut command, &plain, &mut script);
    let script = String::from_utf8_lossy(&script);
    let lines = script.lines().map(|line| match line.strip_suffix(&plain) {
        Some(registers) if line.trim_start().starts_with("complete ") => format!("{registers}{name}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect::<String>().into_bytes()
}

/// Writes manual pages for the program and each of its commands to a folder, or only the program's to standard output.
///
/// # Errors
/// The folder or a page cannot be written.
pub fn manual(command: clap::Command, folder: Option<&Path>) -> Result<()> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return print(&page);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    clap_mangen::generate_to(command, folder).with_context(|| format!("cannot write to {}", folder.display()))
}

/// Writes to standard output. A reader that closes the pipe early is not an error.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
