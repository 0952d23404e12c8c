//! Requests and answers over the agent's port.
//! One thread reads. Answers go to whoever asked, events to whoever follows the program or trace they are of. Every
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
use cxl_cram_guest::protocol::{Call, Event, Failure, Hello, MAX_LINE, Message, Outcome, Reply, Request};
use thiserror::Error;

/// The most lines of a program or a trace that wait to be looked at. Later ones are dropped.
const MAX_QUEUED: usize = 1 << 17;
/// The most programs and traces whose events are kept.
const MAX_FOLLOWED: usize = 1024;
/// How long the guest may take to read a request.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Why a request has no answer.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The guest could not do it.
    #[error("{0}")]
    Refused(Failure),
    /// It took too long.
    #[error("it took longer than {0:?}")]
    TimedOut(Duration),
    /// The machine can no longer answer.
    #[error("the machine can no longer answer")]
    Closed,
    /// The port could not be written.
    #[error("the agent's port is broken: {0}")]
    Broken(#[from] io::Error),
}

/// Whose events.
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
    doomed: Receiver<Infallible>,
    reader: Option<JoinHandle<()>>,
}

/// Who waits for what. Empty, with all senders dropped, once the port is closed.
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
    /// Reads from this port. Waits end when `doomed` is disconnected.
    ///
    /// # Errors
    /// The socket cannot be shared with a thread.
    pub fn new(port: UnixStream, doomed: Receiver<Infallible>) -> io::Result<Self> {
        port.set_write_timeout(Some(WRITE_LIMIT))?;
        let (sender, hello) = bounded(1);
        let router = Arc::new(Mutex::new(Router { hello: Some(sender), ..Router::default() }));
        let (source, routed) = (port.try_clone()?, Arc::clone(&router));
        let reader = thread::Builder::new().name("agent-port".into()).spawn(move || {
            // A QEMU that is killed with something unread resets the connection: an end like any other.
            let ended = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
            if let Err(error) = read(source, &routed)
                && !ended(&error)
            {
                tracing::warn!("the agent's port is no longer read: {error}");
            }
            let mut router = lock(&routed);
            *router = Router { closed: true, ..Router::default() };
        })?;
        Ok(Self { port: Mutex::new(port), next: AtomicU64::new(1), router, hello, doomed, reader: Some(reader) })
    }

    /// Waits for the agent's hello: its first message, after every boot.
    ///
    /// # Errors
    /// It does not come.
    pub fn hello(&self, limit: Duration) -> Result<Hello, ChannelError> {
        self.wait(&self.hello, limit)
    }

    /// Asks and waits for the answer. The guest's own limits should be shorter than this one.
    ///
    /// # Errors
    /// The guest could not do it, or there is no answer.
    pub fn call(&self, call: Call, limit: Duration) -> Result<Reply, ChannelError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut line = serde_json::to_vec(&Request { id, call }).map_err(io::Error::from)?;
        line.push(b'\n');
        if line.len() > MAX_LINE {
            return Err(ChannelError::Refused(Failure::new(format!("send less than {MAX_LINE} bytes at a time"))));
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
        // One line after the other; a lock poisoned by a panic elsewhere still guards a whole stream.
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        match port.write_all(line) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ChannelError::Closed),
            other => Ok(other?),
        }
    }

    /// The events of a program or a trace, from the first on. There is one follower of each.
    pub fn follow(&self, followed: Followed) -> Receiver<Event> {
        lock(&self.router).events(followed).1.clone()
    }

    /// Forgets a program or trace and its events.
    pub fn forget(&self, followed: &Followed) {
        lock(&self.router).events.remove(followed);
    }

    /// Waits for something to arrive.
    ///
    /// # Errors
    /// It does not within the limit, or can no longer.
    pub fn wait<T>(&self, what: &Receiver<T>, limit: Duration) -> Result<T, ChannelError> {
        // What has arrived counts even if the machine has died since.
        if let Ok(arrived) = what.try_recv() {
            return Ok(arrived);
        }
        select! {
            recv(what) -> arrived => arrived.map_err(|_| ChannelError::Closed),
            recv(self.doomed) -> _ => what.try_recv().map_err(|_| ChannelError::Closed),
            default(limit) => Err(ChannelError::TimedOut(limit)),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let port = self.port.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A port that is closed already is fine.
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
            Err(error) => tracing::warn!("the agent sent what is no message: {error}"),
        }
    }
}

impl Router {
    fn route(&mut self, message: Message) {
        match message {
            Message::Hello(hello) => {
                // The agent of before, if there was one, is gone, in a crash perhaps: what it was asked is never answered,
                // and the last words of its programs are not those of programs to which the next one gives their numbers.
                if std::mem::replace(&mut self.greeted, true) {
                    self.answers.clear();
                    self.events.clear();
                }
                if let Some(sender) = &self.hello
                    && sender.try_send(hello).is_err()
                {
                    tracing::warn!("the agent said hello, and nobody had heard the one before");
                }
            }
            Message::Answer { id: Some(id), outcome } => match self.answers.remove(&id) {
                Some(sender) => drop(sender.try_send(outcome)),
                None => tracing::debug!(id, "nobody waits for this answer any more"),
            },
            Message::Answer { id: None, outcome } => tracing::warn!(?outcome, "the agent could not read a request"),
            Message::Event(event) => {
                let followed = match &event {
                    Event::Output { child, .. } | Event::Exited { child, .. } => Followed::Program(*child),
                    Event::Trace { instance, .. } => Followed::Trace(instance.clone()),
                };
                // A program's first lines may come before the answer that names it: the queue waits for its follower.
                if self.events.len() >= MAX_FOLLOWED && !self.events.contains_key(&followed) {
                    tracing::warn!(?followed, "an event is dropped: too many programs and traces");
                } else if self.events(followed.clone()).0.try_send(event).is_err() {
                    tracing::warn!(?followed, "an event is dropped: nobody looks at them");
                }
            }
        }
    }

    fn events(&mut self, followed: Followed) -> &(Sender<Event>, Receiver<Event>) {
        self.events.entry(followed).or_insert_with(|| bounded(MAX_QUEUED))
    }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
