use std::time::Duration;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

fn start(directory: &Path, script: &str) -> Result<(Process, Health), ProcessError> {
    let health = Health::default();
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let process =
        Process::start(command, &Files::in_directory(directory), directory, Watcher::default(), None, &health)?;
    Ok((process, health))
}

#[test]
fn what_a_process_says_and_how_it_ends_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (_process, health) = start(directory.path(), "echo hello; echo no >&2; exit 4").unwrap();
    let exit = health.wait_exit(LIMIT).unwrap();
    assert_eq!((exit.status.code(), exit.stderr.as_str()), (Some(4), "no\n"));
    assert_eq!(fs::read_to_string(directory.path().join("console.log")).unwrap(), "hello\n");
    assert_eq!(health.report().console, ["hello"]);
}

#[test]
fn a_process_does_not_outlive_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let (process, health) = start(directory.path(), "exec sleep 1000").unwrap();
    assert!(health.exit().is_none());
    drop(process);
    let exit = health.exit().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&exit.status), Some(9));
}

#[test]
fn a_process_outlives_the_thread_that_started_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let script = format!("until [ -e {}/go ]; do sleep 0.01; done; exit 7", path.display());
    let (_process, health) = thread::spawn(move || start(&path, &script).unwrap()).join().unwrap();
    fs::write(directory.path().join("go"), "").unwrap();
    assert_eq!(health.wait_exit(LIMIT).unwrap().status.code(), Some(7));
}

#[test]
fn the_script_runs_the_same_command_again() {
    let directory = tempfile::tempdir().unwrap();
    let health = Health::default();
    let mut command = Command::new("printf");
    command.args(["%s|", "it's", "", "a b", "{\"x\":1}"]).env("LC_ALL", "C");
    let files = Files::in_directory(directory.path());
    let _process = Process::start(command, &files, directory.path(), Watcher::default(), None, &health).unwrap();
    health.wait_exit(LIMIT).unwrap();
    let again = Command::new(&files.script).output().unwrap();
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "it's||a b|{\"x\":1}|");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::in_directory(directory.path());
    let command = Command::new("/nonexistent/qemu");
    let error =
        Process::start(command, &files, directory.path(), Watcher::default(), None, &Health::default()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/qemu"), "{error}");
}
