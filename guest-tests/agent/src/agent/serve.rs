//! The agent's loop: reads a request line, handles it in a thread, writes the answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cxl_cram_wire::protocol::{Call, Event, Failure, Hello, MAX_LINE, Message, Outcome, Reply, Request};
use rustix::mount::MountFlags;
use serde_json::Value;

use super::programs::Programs;
use super::trace::Traces;
use super::{files, init, modules};

/// The most requests handled at once.
const MAX_IN_FLIGHT: usize = 64;

/// The output for messages. Each is written as one unbroken line.
#[derive(Clone)]
pub(super) struct Out(Arc<Mutex<Box<dyn Write + Send>>>);

impl Out {
    pub(super) fn new(writer: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }

    /// Sends a message. If the port cannot be written, the error goes to the console.
    pub(super) fn send(&self, message: &Message) {
        let written = serde_json::to_vec(message).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            writer.write_all(&line)?;
            writer.flush()
        });
        if let Err(error) = written {
            eprintln!("cxl-cram: a message to the harness was lost: {error}");
        }
    }

    pub(super) fn event(&self, event: Event) {
        self.send(&Message::Event(event));
    }

    fn answer(&self, id: Option<u64>, result: Result<Reply, Failure>) {
        let outcome = result.map_or_else(Outcome::Failed, Outcome::Done);
        self.send(&Message::Answer { id, outcome });
    }
}

struct Agent {
    out: Out,
    hello: Hello,
    programs: Programs,
    traces: Traces,
    in_flight: AtomicUsize,
}

/// Serves requests until the reader ends.
///
/// # Errors
/// The reader fails.
pub fn serve(reader: impl Read, writer: Box<dyn Write + Send>, hello: Hello) -> io::Result<()> {
    let out = Out::new(writer);
    out.send(&Message::Hello(hello.clone()));
    let agent = Arc::new(Agent {
        hello,
        programs: Programs::new(out.clone()),
        traces: Traces::new(out.clone()),
        out,
        in_flight: AtomicUsize::new(0),
    });
    let mut reader = BufReader::new(reader);
    loop {
        match read_line(&mut reader, MAX_LINE)? {
            Line::End => return Ok(()),
            Line::TooLong => {
                agent.out.answer(None, Err(Failure::new(format!("the line is longer than {MAX_LINE} bytes"))))
            }
            Line::Whole(line) => match parse(&line) {
                Ok(request) => Agent::dispatch(&agent, request),
                Err((id, failure)) => agent.out.answer(id, Err(failure)),
            },
        }
    }
}

impl Agent {
    /// Calls that must keep their order run here, in the reading thread; they never wait.
    fn dispatch(agent: &Arc<Self>, Request { id, call }: Request) {
        let result = match call {
            Call::Hello => Ok(Reply::Hello(agent.hello.clone())),
            Call::Spawn(program) => agent.programs.spawn(program),
            Call::Stdin { child, data } => agent.programs.stdin(child, data.0),
            Call::CloseStdin { child } => agent.programs.close_stdin(child),
            Call::Kill { child, signal } => agent.programs.kill(child, signal),
            call => return Self::in_thread(agent, id, call),
        };
        agent.out.answer(Some(id), result);
    }

    fn in_thread(agent: &Arc<Self>, id: u64, call: Call) {
        if agent.in_flight.fetch_add(1, Ordering::AcqRel) >= MAX_IN_FLIGHT {
            agent.in_flight.fetch_sub(1, Ordering::AcqRel);
            let failure = Failure::new(format!("{MAX_IN_FLIGHT} requests are in flight; wait for an answer first"));
            return agent.out.answer(Some(id), Err(failure));
        }
        let worker = Arc::clone(agent);
        let started = thread::Builder::new().name(format!("request-{id}")).spawn(move || {
            let result = worker.perform(id, call);
            worker.in_flight.fetch_sub(1, Ordering::AcqRel);
            worker.out.answer(Some(id), result);
        });
        if let Err(error) = started {
            agent.in_flight.fetch_sub(1, Ordering::AcqRel);
            agent.out.answer(Some(id), Err(Failure::io("start a thread", &error)));
        }
    }

    fn perform(&self, id: u64, call: Call) -> Result<Reply, Failure> {
        match call {
            Call::Run(run) => self.programs.run(run),
            Call::ReadFile { path, limit } => files::read(Path::new(&path), limit),
            Call::WriteFile { path, data } => files::write(Path::new(&path), &data.0),
            Call::ListDir { path } => files::list(Path::new(&path)),
            Call::WaitFor { condition, timeout_ms } => files::wait_for(&condition, Duration::from_millis(timeout_ms)),
            Call::TraceStart { instance, events } => self.traces.start(&instance, &events),
            Call::TraceStop { instance } => self.traces.stop(&instance),
            Call::Mount { source, target, fstype, options, read_only } => {
                let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
                init::mount_at(&source, Path::new(&target), &fstype, flags, &options)
                    .map(|()| Reply::Nothing)
                    .map_err(|error| Failure::io(format_args!("mount {source} at {target}"), &error))
            }
            Call::LoadModule { path, parameters } => {
                modules::load(Path::new(&path), &parameters).map(|()| Reply::Nothing)
            }
            Call::UnloadModule { name } => modules::unload(&name).map(|()| Reply::Nothing),
            Call::Sync => {
                rustix::fs::sync();
                Ok(Reply::Nothing)
            }
            Call::Reboot => self.leave(id, init::restart),
            Call::Kexec { kernel, initrd, append } => {
                init::load_kernel(Path::new(&kernel), Path::new(&initrd), &append)
                    .map_err(|error| Failure::io(format_args!("load the kernel {kernel}"), &error))?;
                self.leave(id, init::jump)
            }
            Call::PowerOff => self.leave(id, init::power_off),
            Call::Hello | Call::Spawn(_) | Call::Stdin { .. } | Call::CloseStdin { .. } | Call::Kill { .. } => {
                Err(Failure::new("this call must be handled in order, not in a thread"))
            }
        }
    }

    /// Answers before the call, because nothing can answer after it. Only a failed call is answered twice; the harness has
    /// already seen success, and notices the failure when the guest does not go away.
    fn leave(&self, id: u64, call: impl Fn() -> io::Result<()>) -> Result<Reply, Failure> {
        self.out.answer(Some(id), Ok(Reply::Nothing));
        call().map(|()| Reply::Nothing).map_err(|error| Failure::io("leave", &error))
    }
}

/// Parses a request. The error carries the id if the line has one.
fn parse(line: &[u8]) -> Result<Request, (Option<u64>, Failure)> {
    let value: Value =
        serde_json::from_slice(line).map_err(|error| (None, Failure::new(format!("the line is not JSON: {error}"))))?;
    let id = value.get("id").and_then(Value::as_u64);
    serde_json::from_value(value).map_err(|error| (id, Failure::new(format!("not a valid request: {error}"))))
}

#[derive(Debug, PartialEq)]
enum Line {
    Whole(Vec<u8>),
    TooLong,
    End,
}

/// One line, without its end. Drops a line that is longer than `limit`.
fn read_line(reader: &mut impl BufRead, limit: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(Line::End);
        }
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        if line.len() + part.len() > limit {
            too_long = true;
            line.clear();
        } else if !too_long {
            line.extend_from_slice(part);
        }
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(if too_long { Line::TooLong } else { Line::Whole(line) });
        }
    }
}

#[cfg(test)]
mod tests;
