//! A server that is killed with SIGKILL takes no other process with it. Its guardian tidies up, or the next server does.

use std::{
    ffi::CString,
    fs,
    io::{BufReader, Read},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::support::{self, Client, MIB, PAGE, Setup, again, answer, config, media, mounts_below, named, window_file};
use cxl_cram_device::hdm::{
    Window,
    fuse::{FuseConfig, FuseWindow},
};

/// The tests of this file that need `/dev/fuse`.
pub(crate) const TESTS: &[(&str, fn())] = named![
    a_killed_server_dies_while_a_client_maps_dirty_pages,
    a_killed_server_dies_while_it_alone_holds_dirty_pages,
    a_killed_server_dies_while_its_own_threads_wait_for_write_back,
    a_client_that_asks_a_dead_server_is_ended_not_hung,
    a_server_that_is_killed_together_with_its_guardian_is_tidied_up_by_the_next,
];

const SERVER: &str = "CXL_CRAM_TEST_SERVER";
/// The same for a server that writes back all the time.
const BUSY_SERVER: &str = "CXL_CRAM_TEST_BUSY_SERVER";
/// Of a busy server that is killed, one in two or so waits for itself at that moment.
const KILLS: u32 = 12;

/// Serves a window in the directory the variable names, dirties pages of it itself, and waits to be killed. False if the
/// variable is not set.
pub(crate) fn server_process() -> bool {
    let Some(directory) = std::env::var_os(SERVER) else { return false };
    let media = media(16 * MIB, 16 * MIB);
    let window = FuseWindow::new(config(directory.as_ref()), Arc::clone(&media)).unwrap();
    window.write(8 * MIB, &vec![1; 64 * PAGE as usize]);
    println!("\nanswer 0");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    true
}

/// Serves a window in the directory the variable names, writes back what a client dirties as soon as it can, and waits to
/// be killed. False if the variable is not set.
pub(crate) fn busy_server_process() -> bool {
    let Some(directory) = std::env::var_os(BUSY_SERVER) else { return false };
    let media = media(16 * MIB, 16 * MIB);
    let config = FuseConfig { flush_interval: Duration::from_millis(1), ..config(directory.as_ref()) };
    let _window = FuseWindow::new(config, Arc::clone(&media)).unwrap();
    println!("\nanswer 0");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    true
}

fn server(directory: &Path) -> Child {
    started(SERVER, directory)
}

/// Leads a process group of its own, in which its guardian is too.
fn started(variable: &str, directory: &Path) -> Child {
    let mut server = again(variable, directory).process_group(0).spawn().unwrap();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    answer(&mut stdout);
    server
}

/// Kills it and waits until it is gone. Should that hang, the wedged mount is aborted, so that the machine is not left
/// with a process that cannot be killed.
fn kill(mut server: Child, mount: PathBuf) {
    server.kill().unwrap();
    let (gone, waits) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let wedged = waits.recv_timeout(Duration::from_secs(10)) == Err(mpsc::RecvTimeoutError::Timeout);
        if wedged {
            let path = CString::new(mount.as_os_str().as_bytes()).unwrap();
            // SAFETY: the string lives through the call.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_FORCE) };
        }
        wedged
    });
    server.wait().unwrap();
    drop(gone);
    assert!(!watchdog.join().unwrap(), "the killed server hung until its connection was aborted");
}

/// Nothing of the server that was killed is left soon, and a window in its place works.
fn tidied_by_the_guardian(directory: tempfile::TempDir) {
    // Nobody tells when it is done, and only root may unmount.
    let until = Instant::now() + Duration::from_secs(10);
    while rustix::process::geteuid().is_root() && fs::read_dir(directory.path()).unwrap().count() > 0 {
        assert!(Instant::now() < until, "left behind: {:?}", mounts_below(directory.path()));
        thread::sleep(Duration::from_millis(5));
    }
    replaced_by_the_next_server(directory);
}

fn replaced_by_the_next_server(directory: tempfile::TempDir) {
    let media = media(16 * MIB, 16 * MIB);
    let window = FuseWindow::new(config(directory.path()), Arc::clone(&media)).unwrap();
    assert_eq!(mounts_below(directory.path()).len(), 1, "only the new one");
    let setup = Setup { media, window, directory };
    setup.client().store(0, 1);
    let Setup { window, directory, .. } = setup;
    drop(window);
    assert_eq!(mounts_below(directory.path()), Vec::<String>::new());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

fn a_killed_server_dies_while_a_client_maps_dirty_pages() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let file = window_file(directory.path());
    let mut client = Client::new(&file);
    client.noise(0, 64);
    kill(server, file.parent().unwrap().to_path_buf());
    // What is resident is still there; the client can be ended too.
    assert_eq!(client.load(0), support::noise_word(0));
    drop(client);
    tidied_by_the_guardian(directory);
}

fn a_killed_server_dies_while_it_alone_holds_dirty_pages() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let file = window_file(directory.path());
    kill(server, file.parent().unwrap().to_path_buf());
    tidied_by_the_guardian(directory);
}

fn a_killed_server_dies_while_its_own_threads_wait_for_write_back() {
    for kill_after in 1..=KILLS {
        let directory = tempfile::tempdir().unwrap();
        let server = started(BUSY_SERVER, directory.path());
        let file = window_file(directory.path());
        let mut client = Client::new(&file);
        client.begin("noise 0 4096");
        thread::sleep(Duration::from_millis(5 * u64::from(kill_after)));
        kill(server, file.parent().unwrap().to_path_buf());
        drop(client);
        tidied_by_the_guardian(directory);
    }
}

fn a_client_that_asks_a_dead_server_is_ended_not_hung() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let file = window_file(directory.path());
    let mut client = Client::new(&file);
    client.store(0, 1);
    kill(server, file.parent().unwrap().to_path_buf());
    // Never touched before: no process answers the load, and SIGBUS ends the client.
    assert_eq!(client.end_by("load 4194304 0"), Some(libc::SIGBUS));
    tidied_by_the_guardian(directory);
}

fn a_server_that_is_killed_together_with_its_guardian_is_tidied_up_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = server(directory.path());
    let group = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    server.wait().unwrap();
    assert_eq!(mounts_below(directory.path()).len(), 1, "the mount of the dead server is still there");
    replaced_by_the_next_server(directory);
}
