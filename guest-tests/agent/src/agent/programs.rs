//! Programs: run to their end, or spawned and kept with their input and output.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cxl_cram_wire::protocol::{Event, Exit, Failure, MAX_BYTES, Program, Ran, Reply, Run, Stream};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::serve::Out;

/// The most programs kept at once.
const MAX_PROGRAMS: usize = 64;
/// How long output is still read after a program has ended; a grandchild may hold the pipe open without end.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);
/// Lines of a spawned program are cut here, in bytes.
const MAX_OUTPUT_LINE: u64 = MAX_BYTES as u64;

/// The spawned programs.
pub(super) struct Programs {
    out: Out,
    next: AtomicU64,
    kept: Arc<Mutex<HashMap<u64, Kept>>>,
}

/// A spawned program that has not been reaped, so its process id is its own.
struct Kept {
    group: Pid,
    /// Bytes for its standard input; dropping the sender closes it. A separate thread writes them, so that a program that
    /// does not read holds up nothing else.
    stdin: Option<Sender<Vec<u8>>>,
}

impl Programs {
    pub(super) fn new(out: Out) -> Self {
        Self { out, next: AtomicU64::new(1), kept: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<u64, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a program to its end or its limit.
    pub(super) fn run(&self, Run { program, stdin, timeout_ms }: Run) -> Result<Reply, Failure> {
        let begin = Instant::now();
        let mut child = start(&program)?;
        let group = group(&child)?;
        let failed = |error: io::Error| Failure::io(format_args!("run {:?}", program.argv), &error);
        if let Some(pipe) = child.stdin.take() {
            work(group, "stdin", move || feed(pipe, [stdin.0]))?;
        }
        let (done, finished) = mpsc::channel();
        let stdout = child.stdout.take().map(|pipe| Collected::read(group, pipe, done.clone())).transpose()?;
        let stderr = child.stderr.take().map(|pipe| Collected::read(group, pipe, done)).transpose()?;
        let timed_out = !wait_exit(group, Duration::from_millis(timeout_ms)).map_err(failed)?;
        if timed_out {
            // The child is not reaped yet, so the group id cannot have been reused.
            kill_process_group(group, Signal::KILL).map_err(|error| failed(error.into()))?;
        }
        let status = child.wait().map_err(failed)?;
        let elapsed_ms = millis(begin.elapsed());
        // The channel is closed once both readers have dropped their senders.
        let open = matches!(finished.recv_timeout(OUTPUT_PATIENCE), Err(RecvTimeoutError::Timeout));
        let (stdout, cut_out) = stdout.map(|s| s.take()).unwrap_or_default();
        let (stderr, cut_err) = stderr.map(|s| s.take()).unwrap_or_default();
        Ok(Reply::Ran(Ran {
            exit: exit(status),
            timed_out,
            stdout: stdout.into(),
            stderr: stderr.into(),
            truncated: open || cut_out || cut_err,
            elapsed_ms,
        }))
    }

    /// Starts a program whose output is streamed.
    pub(super) fn spawn(&self, program: Program) -> Result<Reply, Failure> {
        let mut kept = self.kept();
        if kept.len() >= MAX_PROGRAMS {
            return Err(Failure::new(format!("{MAX_PROGRAMS} programs are running; end one first")));
        }
        let mut child = start(&program)?;
        let group = group(&child)?;
        let pid = child.id();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (stdin, bytes) = mpsc::channel();
        if let Some(pipe) = child.stdin.take() {
            work(group, "stdin", move || feed(pipe, bytes))?;
        }
        let (done, finished) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            self.stream(group, id, Stream::Stdout, pipe, done.clone())?;
        }
        if let Some(pipe) = child.stderr.take() {
            self.stream(group, id, Stream::Stderr, pipe, done)?;
        }
        kept.insert(id, Kept { group, stdin: Some(stdin) });
        drop(kept);
        let (out, kept) = (self.out.clone(), Arc::clone(&self.kept));
        work(group, "reaper", move || {
            // Remove it from the list before reaping it, so that a signal never reaches another process.
            let ended = wait_exit(group, Duration::MAX);
            kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            let status = ended.and_then(|_| child.wait());
            let _: Result<(), RecvTimeoutError> = finished.recv_timeout(OUTPUT_PATIENCE);
            let exit = status.map_or(Exit::Code(-1), exit);
            out.event(Event::Exited { child: id, exit });
        })?;
        Ok(Reply::Spawned { child: id, pid })
    }

    /// Queues bytes for a program's standard input.
    pub(super) fn stdin(&self, child: u64, data: Vec<u8>) -> Result<Reply, Failure> {
        let kept = self.kept();
        let stdin = kept.get(&child).ok_or_else(gone)?.stdin.as_ref();
        stdin
            .and_then(|stdin| stdin.send(data).ok())
            .map(|()| Reply::Nothing)
            .ok_or_else(|| Failure::new("the program's standard input is closed"))
    }

    /// Closes a program's standard input once everything queued is written. A program may exit before this arrives, so
    /// that is no error.
    pub(super) fn close_stdin(&self, child: u64) -> Result<Reply, Failure> {
        let mut kept = self.kept();
        match kept.get_mut(&child) {
            Some(kept) => kept.stdin = None,
            None if (1..self.next.load(Ordering::Relaxed)).contains(&child) => {}
            None => return Err(gone()),
        }
        Ok(Reply::Nothing)
    }

    /// Sends a signal to a program's process group.
    pub(super) fn kill(&self, child: u64, signal: i32) -> Result<Reply, Failure> {
        let signal = Signal::from_named_raw(signal).ok_or_else(|| Failure::new("unknown signal number"))?;
        let kept = self.kept();
        let group = kept.get(&child).ok_or_else(gone)?.group;
        kill_process_group(group, signal)
            .map(|()| Reply::Nothing)
            .map_err(|error| Failure::io("signal a program", &error.into()))
    }

    fn stream(
        &self,
        group: Pid,
        child: u64,
        stream: Stream,
        pipe: impl Read + Send + 'static,
        done: Sender<()>,
    ) -> Result<(), Failure> {
        let out = self.out.clone();
        work(group, "output", move || {
            let _done = done;
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.by_ref().take(MAX_OUTPUT_LINE).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                let line_text = String::from_utf8_lossy(text).into_owned();
                out.event(Event::Output { child, stream, line: line_text });
                line.clear();
            }
        })
    }
}

fn gone() -> Failure {
    Failure::new("no such program; it has ended or was never started")
}

/// Starts a program in a new process group, so that it can be killed with all its children.
fn start(program: &Program) -> Result<Child, Failure> {
    let (name, arguments) = program.argv.split_first().ok_or_else(|| Failure::new("the command line is empty"))?;
    Command::new(name)
        .args(arguments)
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .current_dir(program.cwd.as_deref().unwrap_or("/"))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::io(format_args!("start {name}"), &error))
}

fn group(child: &Child) -> Result<Pid, Failure> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Failure::new("the program has no process id"))
}

/// Waits until the child has ended, without reaping it. Returns false at `limit`.
fn wait_exit(child: Pid, limit: Duration) -> io::Result<bool> {
    let handle = pidfd_open(child, PidfdFlags::empty())?;
    let end = Instant::now().checked_add(limit);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.map(|left| left.try_into().map_err(io::Error::other)).transpose()?;
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes until the source ends. The program may end without reading everything.
fn feed(mut pipe: ChildStdin, source: impl IntoIterator<Item = Vec<u8>>) {
    for bytes in source {
        if pipe.write_all(&bytes).and_then(|()| pipe.flush()).is_err() {
            return;
        }
    }
}

/// The beginning of a stream. Reads on to the end, so that the writer never blocks.
struct Collected(Arc<Mutex<(Vec<u8>, bool)>>);

impl Collected {
    fn read(group: Pid, mut pipe: impl Read + Send + 'static, done: Sender<()>) -> Result<Self, Failure> {
        let shared = Arc::new(Mutex::new((Vec::new(), false)));
        let into = Arc::clone(&shared);
        work(group, "output", move || {
            let _done = done;
            let mut buffer = vec![0; 1 << 16];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => {
                        let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                        let room = MAX_BYTES.saturating_sub(into.0.len()).min(read);
                        into.0.extend_from_slice(&buffer[..room]);
                        into.1 |= room < read;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        })?;
        Ok(Self(shared))
    }

    fn take(&self) -> (Vec<u8>, bool) {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts a thread that works for a program. Where there can be no more threads the program is killed.
fn work(group: Pid, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(|error| {
        let _ = kill_process_group(group, Signal::KILL);
        Failure::io("start a thread for a program", &error)
    })
}

fn exit(status: ExitStatus) -> Exit {
    status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or_default()), Exit::Code)
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
