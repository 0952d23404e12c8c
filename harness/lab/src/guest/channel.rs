//! Sends requests over the agent's port and receives answers and events.
//!
//! One thread reads. It passes each answer to its caller, and each event to the follower of its program or trace. Every
//! wait has a limit, and ends at once when the machine can no longer answer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use cxl_cram_wire::protocol::{Call, Event, Failure, Hello, MAX_LINE, Message, Outcome, Reply, Request};
use thiserror::Error;

/// Maximum number of queued events of a program or trace. Later ones are dropped.
const MAX_QUEUED: usize = 1 << 17;
/// Maximum number of programs and traces whose events are kept.
const MAX_FOLLOWED: usize = 1024;
/// How long the guest may take to read a request.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// A request that failed or got no answer.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The request failed in the guest.
    #[error("{0}")]
    Refused(Failure),
    /// No answer within the limit.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The machine can no longer answer.
    #[error("the machine can no longer answer")]
    Closed,
    /// The port cannot be written.
    #[error("cannot write to the agent's port")]
    Broken(#[from] io::Error),
}

/// The source of events to follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Followed {
    /// A spawned program.
    Program(u64),
    /// An ftrace instance.
    Trace(String),
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Channel {
    port: Mutex<UnixStream>,
    next: AtomicU64,
    router: Arc<Mutex<Router>>,
    hello: Receiver<Hello>,
    machine_gone: Receiver<Infallible>,
    reader: Option<JoinHandle<()>>,
}

/// The senders for pending answers and events. Once the port is closed, it is empty and all senders are dropped.
#[derive(Debug, Default)]
struct Router {
    closed: bool,
    answers: HashMap<u64, Sender<Outcome>>,
    events: HashMap<Followed, (Sender<Event>, Receiver<Event>)>,
    hello: Option<Sender<Hello>>,
    /// An agent has said hello.
    greeted: bool,
}

impl Channel {
    /// Starts reading from this port. Waits end when `machine_gone` disconnects.
    ///
    /// # Errors
    /// The socket cannot be duplicated, or the reader thread cannot be started.
    pub fn new(port: UnixStream, machine_gone: Receiver<Infallible>) -> io::Result<Self> {
        port.set_write_timeout(Some(WRITE_LIMIT))?;
        let (sender, hello) = bounded(1);
        let router = Arc::new(Mutex::new(Router { hello: Some(sender), ..Router::default() }));
        let (source, routed) = (port.try_clone()?, Arc::clone(&router));
        let reader = thread::Builder::new().name("agent-reader".into()).spawn(move || {
            // Killing QEMU while data is unread resets the connection; that is a normal end.
            let ended = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
            if let Err(error) = read(source, &routed)
                && !ended(&error)
            {
                tracing::warn!("cannot read the agent's port any longer: {error}");
            }
            let mut router = lock(&routed);
            *router = Router { closed: true, ..Router::default() };
        })?;
        Ok(Self { port: Mutex::new(port), next: AtomicU64::new(1), router, hello, machine_gone, reader: Some(reader) })
    }

    /// Waits for the agent's hello, its first message after every boot.
    ///
    /// # Errors
    /// No hello within the limit, or the machine can no longer answer.
    pub fn hello(&self, limit: Duration) -> Result<Hello, ChannelError> {
        self.wait(&self.hello, limit)
    }

    /// Sends a request and waits for the answer. The guest's own limits should be shorter than this one.
    ///
    /// # Errors
    /// The request is too long or fails in the guest, or there is no answer.
    pub fn call(&self, call: Call, limit: Duration) -> Result<Reply, ChannelError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut line = serde_json::to_vec(&Request { id, call }).map_err(io::Error::from)?;
        line.push(b'\n');
        if line.len() > MAX_LINE {
            let message = format!("the request has {} bytes; the agent accepts at most {MAX_LINE}", line.len());
            return Err(ChannelError::Refused(Failure::new(message)));
        }
        let (sender, answer) = bounded(1);
        {
            let mut router = lock(&self.router);
            if router.closed {
                return Err(ChannelError::Closed);
            }
            router.answers.insert(id, sender);
        }
        let answered = self.send(&line).and_then(|()| self.wait(&answer, limit));
        lock(&self.router).answers.remove(&id);
        match answered? {
            Outcome::Done(reply) => Ok(reply),
            Outcome::Failed(failure) => Err(ChannelError::Refused(failure)),
        }
    }

    fn send(&self, line: &[u8]) -> Result<(), ChannelError> {
        // The lock keeps lines whole. A panic elsewhere may have poisoned it, but the stream is still intact.
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        match port.write_all(line) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ChannelError::Closed),
            other => Ok(other?),
        }
    }

    /// The events of a program or a trace, from the first one on. Each supports one follower.
    pub fn follow(&self, followed: Followed) -> Receiver<Event> {
        lock(&self.router).events(followed).1.clone()
    }

    /// Drops a program or trace and its events.
    pub fn forget(&self, followed: &Followed) {
        lock(&self.router).events.remove(followed);
    }

    /// Receives one message.
    ///
    /// # Errors
    /// None arrives within the limit, or the machine can no longer send one.
    pub fn wait<T>(&self, receiver: &Receiver<T>, limit: Duration) -> Result<T, ChannelError> {
        // A message that has arrived is valid even if the machine has died since.
        if let Ok(message) = receiver.try_recv() {
            return Ok(message);
        }
        select! {
            recv(receiver) -> message => message.map_err(|_| ChannelError::Closed),
            recv(self.machine_gone) -> _ => receiver.try_recv().map_err(|_| ChannelError::Closed),
            default(limit) => Err(ChannelError::TimedOut(limit)),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let port = self.port.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The port may be closed already.
        let _: io::Result<()> = port.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _: thread::Result<()> = reader.join();
        }
    }
}

fn lock(router: &Mutex<Router>) -> MutexGuard<'_, Router> {
    router.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Routes messages until the port ends.
fn read(port: UnixStream, router: &Mutex<Router>) -> io::Result<()> {
    let mut port = BufReader::new(port);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = port.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        match serde_json::from_slice(&line) {
            Ok(message) => lock(router).route(message),
            Err(error) => tracing::warn!("the agent sent an invalid message: {error}"),
        }
    }
}

impl Router {
    fn route(&mut self, message: Message) {
        match message {
            Message::Hello(hello) => {
                // A second hello: the previous agent is gone, perhaps in a crash. It will answer nothing, and its last
                // events must not go to new programs, which get the same numbers.
                if std::mem::replace(&mut self.greeted, true) {
                    self.answers.clear();
                    self.events.clear();
                }
                if let Some(sender) = &self.hello
                    && sender.try_send(hello).is_err()
                {
                    tracing::warn!("the agent sent a second hello before the first was received");
                }
            }
            Message::Answer { id: Some(id), outcome } => match self.answers.remove(&id) {
                Some(sender) => drop(sender.try_send(outcome)),
                None => tracing::debug!(id, "an answer came too late"),
            },
            Message::Answer { id: None, outcome } => tracing::warn!(?outcome, "the agent could not read a request"),
            Message::Event(event) => {
                let followed = match &event {
                    Event::Output { child, .. } | Event::Exited { child, .. } => Followed::Program(*child),
                    Event::Trace { instance, .. } => Followed::Trace(instance.clone()),
                };
                // A program's first lines may arrive before the answer that names it, so they wait for its follower.
                if self.events.len() >= MAX_FOLLOWED && !self.events.contains_key(&followed) {
                    tracing::warn!(?followed, "dropped an event: too many programs and traces");
                } else if self.events(followed.clone()).0.try_send(event).is_err() {
                    tracing::warn!(?followed, "dropped an event: its queue is full");
                }
            }
        }
    }

    fn events(&mut self, followed: Followed) -> &(Sender<Event>, Receiver<Event>) {
        self.events.entry(followed).or_insert_with(|| bounded(MAX_QUEUED))
    }
}

#[cfg(test)]
mod tests;
