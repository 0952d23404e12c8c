use std::time::Duration;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

fn start(directory: &Path, script: &str) -> Result<(Process, Health), ProcessError> {
    let health = Health::default();
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let process = Process::start(
        command,
        &Files::in_directory(directory),
        Needs::folder(directory),
        Watcher::default(),
        None,
        &health,
    )?;
    Ok((process, health))
}

#[test]
fn the_output_and_exit_of_a_process_are_kept() {
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
fn the_script_recreates_missing_files_and_waits_for_the_devices() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("a run");
    fs::create_dir(&run).unwrap();
    let (image, socket) = (run.join("scratch.img"), run.join("device0.sock"));
    File::create(&image).unwrap().set_len(4096).unwrap();
    let devices = [Device { socket: socket.clone(), capacity: 1 << 30 }];
    let drives = [Drive { image: image.clone(), writable: true }, Drive { image: "/corpus".into(), writable: false }];
    let needs = Needs { folder: &directory.path().join("its own"), devices: &devices, drives: &drives };
    let mut command = Command::new("ls");
    command.arg(needs.folder).arg(&image);
    let (files, health) = (Files::in_directory(directory.path()), Health::default());
    let _process = Process::start(command, &files, needs, Watcher::default(), None, &health).unwrap();
    health.wait_exit(LIMIT).unwrap();
    fs::remove_dir_all(&run).unwrap();

    let again = Command::new(&files.script).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !image.exists() {
        thread::sleep(Duration::from_millis(10));
    }
    let _served = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let output = again.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.is_empty() || stderr == "waiting for device 0: device0.sh serves it\n", "{stderr}");
    assert_eq!(fs::metadata(&image).unwrap().len(), 4096);
}

#[test]
fn a_missing_program_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::in_directory(directory.path());
    let command = Command::new("/nonexistent/qemu");
    let error =
        Process::start(command, &files, Needs::folder(directory.path()), Watcher::default(), None, &Health::default())
            .unwrap_err();
    assert!(error.to_string().contains("/nonexistent/qemu"), "{error}");
}
