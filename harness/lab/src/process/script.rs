//! Scripts that start a program again as the harness started it.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Command,
};

/// Writes a script that runs this command, with a comment at its head and some lines of shell before the command.
pub(crate) fn write(path: &Path, remark: &str, before: &str, command: &Command) -> io::Result<()> {
    let mut script = format!("#!/bin/sh\n# {remark}\n{before}exec");
    if command.get_envs().len() > 0 {
        script.push_str(" env");
    }
    let (set, unset): (Vec<_>, Vec<_>) = command.get_envs().partition(|(_, value)| value.is_some());
    // env(1) takes its options first.
    for (name, _) in unset {
        script.push_str(&format!(" -u {}", name.to_string_lossy()));
    }
    for (name, value) in set {
        script.push_str(&format!(" {}={}", name.to_string_lossy(), quote(value.unwrap_or_default())));
    }
    script.push_str(&format!(" {}", quote(command.get_program())));
    for argument in command.get_args() {
        let option = argument.as_encoded_bytes().starts_with(b"-");
        script.push_str(if option { " \\\n    " } else { " " });
        script.push_str(&quote(argument));
    }
    script.push('\n');
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    OpenOptions::new().write(true).create_new(true).mode(0o755).open(path)?.write_all(script.as_bytes())
}

/// Quotes a word for the shell. A word with a NUL, which no argument can have, stays as it is.
pub(crate) fn quote(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    shlex::try_quote(&word).map_or_else(|_| word.to_string(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_runs_the_same_command_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("again.sh");
        let mut command = Command::new("printf");
        command.args(["%s|", "it's", "", "a b", "{\"x\":1}", "-n"]);
        for with_variables in [false, true] {
            if with_variables {
                command.env("LC_ALL", "C").env_remove("TERM");
            }
            write(&path, "A test.", "printf 'before|'\n", &command).unwrap();
            let again = Command::new(&path).output().unwrap();
            assert_eq!(String::from_utf8(again.stdout).unwrap(), "before|it's||a b|{\"x\":1}|-n|");
        }
    }
}
