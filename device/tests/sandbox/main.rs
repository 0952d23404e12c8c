//! The sandbox from inside: a process that was taken over tries what an intruder would.
//!
//! The test binary starts itself again with [`ATTEMPT`] set, confines itself as the device does, tries one thing and prints
//! what came of it. Most are also tried without the sandbox, to see that it is the sandbox that refuses.

#![allow(clippy::unwrap_used, reason = "tests")]

mod attempts;

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::{
        net::UnixListener,
        process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitCode, ExitStatus, Output, Stdio},
};

use cxl_cram_device::sandbox;
use libtest_mimic::{Arguments, Trial};
use rustix::process::{Resource, Rlimit, setrlimit};

use attempts::{Attempt, Fate, PLACE, PORT};

/// The name of an attempt.
const ATTEMPT: &str = "CXL_CRAM_TEST_ATTEMPT";
/// Set: without the sandbox.
const FREE: &str = "CXL_CRAM_TEST_FREE";
/// A user that has nothing, for tests that root runs.
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(ATTEMPT) {
        return attempt_process(&name);
    }
    let each = attempts::ALL.iter().map(|attempt| {
        Trial::test(format!("refused::{}", attempt.name), move || {
            refused(attempt);
            Ok(())
        })
    });
    let others: [(&str, fn()); 4] = [
        ("a_panic_still_says_what_and_where", a_panic_still_says_what_and_where),
        ("what_a_server_needs_still_works", what_a_server_needs_still_works),
        ("no_process_of_the_same_user_reads_its_memory", no_process_of_the_same_user_reads_its_memory),
        ("it_leaves_no_core_file", it_leaves_no_core_file),
    ];
    let others = others.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), each.chain(others).collect()).exit_code()
}

/// The process that tries.
fn attempt_process(name: &str) -> ExitCode {
    if std::env::var_os(FREE).is_none() {
        let missing = sandbox::enter().unwrap();
        assert_eq!(missing, sandbox::Missing::default(), "this kernel cannot confine");
    }
    match name {
        "panic" => panic!("a reason"),
        "abort" => std::process::abort(),
        "needs" => attempts::needs(),
        "wait" => {
            println!("waits");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        name => {
            let attempt = attempts::ALL.iter().find(|attempt| attempt.name == name).unwrap();
            match (attempt.run)() {
                Ok(()) => println!("done"),
                Err(error) => println!("refused {}", error.raw_os_error().unwrap()),
            }
        }
    }
    ExitCode::SUCCESS
}

fn again(name: &str) -> Command {
    // By this name, so that a user who may not look into the folder can start it too.
    let mut command = Command::new("/proc/self/exe");
    command.env(ATTEMPT, name).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn outcome(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout);
    format!("{:?}, {}{}", output.status, said, String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn refused(attempt: &Attempt) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "secret").unwrap();
    let _listener = UnixListener::bind(directory.path().join("socket")).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let run = |free: bool| {
        let mut command = again(attempt.name);
        command.env(PLACE, directory.path()).env(PORT, port.local_addr().unwrap().port().to_string());
        if free {
            command.env(FREE, "1");
        }
        command.output().unwrap()
    };
    let confined = run(false);
    let said = String::from_utf8_lossy(&confined.stdout).trim().to_owned();
    let right = match attempt.fate {
        Fate::Killed => confined.status.signal() == Some(libc::SIGSYS),
        Fate::Refused => {
            [libc::EPERM, libc::EACCES].map(|errno| format!("refused {errno}")).contains(&said)
                && confined.status.success()
        }
    };
    assert!(right, "{}", outcome(&confined));
    if attempt.anyone_may {
        let free = run(true);
        assert!(
            free.status.success() && !String::from_utf8_lossy(&free.stdout).contains("refused"),
            "{}",
            outcome(&free)
        );
    }
}

fn a_panic_still_says_what_and_where() {
    let output = again("panic").env("RUST_BACKTRACE", "1").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{}", outcome(&output));
    assert!(log.contains("a reason") && log.contains("main.rs") && log.contains("attempt_process"), "{log}");
}

fn what_a_server_needs_still_works() {
    let output = again("needs").output().unwrap();
    assert!(output.status.success(), "{}", outcome(&output));
}

/// A confined process that waits, of a user without rights where there is a choice.
fn waiting() -> Child {
    let mut command = again("wait");
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said.trim(), "waits");
    child
}

fn ended(mut child: Child) -> ExitStatus {
    drop(child.stdin.take());
    child.wait().unwrap()
}

fn no_process_of_the_same_user_reads_its_memory() {
    let child = waiting();
    for name in ["mem", "maps", "environ"] {
        let mut cat = Command::new("cat");
        cat.arg(format!("/proc/{}/{name}", child.id())).stdout(Stdio::null()).stderr(Stdio::piped());
        if rustix::process::geteuid().is_root() {
            cat.uid(NOBODY).gid(NOBODY);
        }
        let output = cat.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && log.contains("Permission denied"), "{name}: {log}");
    }
    assert!(ended(child).success());
}

fn it_leaves_no_core_file() {
    let mut command = again("abort");
    // SAFETY: between fork and exec it makes one system call.
    unsafe {
        command.pre_exec(|| {
            let limit = rustix::process::getrlimit(Resource::Core).maximum;
            Ok(setrlimit(Resource::Core, Rlimit { current: limit, maximum: limit })?)
        });
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", outcome(&output));
    assert!(!output.status.core_dumped());
}
