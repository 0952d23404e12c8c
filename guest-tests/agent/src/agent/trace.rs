//! Tracing: separate ftrace instances, whose lines are streamed as they arrive.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use cxl_cram_wire::protocol::{Event, Failure, Reply};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;

use super::serve::Out;

const INSTANCES: &str = "/sys/kernel/tracing/instances";
/// Time limit for polling an idle pipe, in nanoseconds; a stop waits at most this long.
const POLL_NSEC: i64 = 50_000_000;
/// The most instances at once.
const MAX_INSTANCES: usize = 16;

/// The running instances.
pub(super) struct Traces {
    out: Out,
    running: Mutex<HashMap<String, Running>>,
}

struct Running {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

impl Traces {
    pub(super) fn new(out: Out) -> Self {
        Self { out, running: Mutex::default() }
    }

    /// Creates the instance and enables the events in it.
    pub(super) fn start(&self, instance: &str, events: &[String]) -> Result<Reply, Failure> {
        let plain =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        if !plain(instance) || !events.iter().all(|event| event.split(':').all(plain)) {
            return Err(Failure::new("instance and event names may contain only letters, digits, _ and -"));
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(instance) || running.len() >= MAX_INSTANCES {
            return Err(Failure::new(format!(
                "{instance} or {MAX_INSTANCES} other instances are running; stop one first"
            )));
        }
        let path = Path::new(INSTANCES).join(instance);
        let begun = self.begin(instance, &path, events).inspect_err(|_| {
            let _: io::Result<()> = fs::remove_dir(&path);
        })?;
        running.insert(instance.to_owned(), begun);
        Ok(Reply::Nothing)
    }

    fn begin(&self, instance: &str, path: &Path, events: &[String]) -> Result<Running, Failure> {
        let failed = |what: &Path, error: io::Error| Failure::io(what.display(), &error);
        fs::create_dir(path).map_err(|error| failed(path, error))?;
        let pipe = path.join("trace_pipe");
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&pipe)
            .map_err(|error| failed(&pipe, error))?;
        for event in events {
            let enable = path.join("events").join(event.replace(':', "/")).join("enable");
            fs::write(&enable, "1").map_err(|error| failed(&enable, error))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (out, name, stopped) = (self.out.clone(), instance.to_owned(), Arc::clone(&stop));
        let reader = thread::Builder::new()
            .name(format!("trace-{instance}"))
            .spawn(move || {
                stream(file, &stopped, |line| {
                    out.event(Event::Trace { instance: name.clone(), line });
                })
            })
            .map_err(|error| failed(path, error))?;
        Ok(Running { path: path.to_owned(), stop, reader })
    }

    /// Stops the instance, sends the lines it still holds, and removes it.
    pub(super) fn stop(&self, instance: &str) -> Result<Reply, Failure> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
        let Running { path, stop, reader } =
            running.ok_or_else(|| Failure::new(format!("{instance} is not running")))?;
        let off = path.join("tracing_on");
        fs::write(&off, "0").map_err(|error| Failure::io(off.display(), &error))?;
        stop.store(true, Ordering::Release);
        reader.join().map_err(|_| Failure::new("the trace reader panicked"))?;
        fs::remove_dir(&path).map_err(|error| Failure::io(path.display(), &error))?;
        Ok(Reply::Nothing)
    }
}

/// Passes on every line of the pipe, until `stop` is set and the pipe is empty.
fn stream(mut pipe: impl Read + std::os::fd::AsFd, stop: &AtomicBool, mut line: impl FnMut(String)) {
    let mut held = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let stopping = stop.load(Ordering::Acquire);
        match pipe.read(&mut buffer) {
            Ok(read) if read > 0 => {
                held.extend_from_slice(&buffer[..read]);
                while let Some(end) = held.iter().position(|&byte| byte == b'\n') {
                    line(String::from_utf8_lossy(&held[..end]).into_owned());
                    held.drain(..=end);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // No data now. With tracing off, a drained pipe returns end of file.
            _ if stopping => return,
            _ => {
                let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: POLL_NSEC };
                let _: rustix::io::Result<usize> = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&limit));
            }
        }
    }
}
