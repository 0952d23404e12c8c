//! A running control server on a real medium, and a client that speaks QMP or sends any bytes.

use std::{
    io::{BufRead, BufReader, Write},
    os::{fd::BorrowedFd, unix::net::UnixStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use cxl_cram_device::{
    control::{DeviceCommands, Events, Server},
    cxl::{
        Injector,
        delay::{CommandDelay, DelayError},
        event_record::Record,
        events::Log,
        failure::{CommandFailure, FailureError},
        lost_interrupts::LoseError,
        ras::{Correctable, Header, Uncorrectable},
    },
    hdm::{
        Resident, Window,
        media::{Crossing, Media, MediaConfig, Threshold, Watermarks},
    },
    store::Codec,
    vfio_user::{Interrupts, Stop},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub(crate) const CAPACITY: u64 = 256 << 20;
pub(crate) const PHYSICAL: u64 = 1 << 20;

/// Keeps what is injected.
#[derive(Default)]
pub(crate) struct Injected {
    low: AtomicU32,
    high: AtomicU32,
    events: Mutex<Vec<(Log, Record)>>,
    pub(crate) uncorrectable: Mutex<Vec<(Uncorrectable, Header)>>,
    pub(crate) correctable: Mutex<Vec<Correctable>>,
    pub(crate) failures: Mutex<Vec<CommandFailure>>,
    pub(crate) delays: Mutex<Vec<CommandDelay>>,
    pub(crate) losses: Mutex<Vec<(u16, u64)>>,
}

impl Injected {
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.low.load(Ordering::SeqCst), self.high.load(Ordering::SeqCst))
    }

    /// The events, in order, as their logs and bytes.
    pub(crate) fn events(&self) -> Vec<(Log, [u8; 128])> {
        self.events.lock().iter().map(|(log, record)| (*log, record.to_bytes())).collect()
    }
}

impl Injector for Injected {
    fn inject_crossing(&self, crossing: Crossing) {
        let count = match crossing {
            Crossing::Low => &self.low,
            Crossing::High => &self.high,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }

    fn inject_uncorrectable(&self, error: Uncorrectable, header: &Header) {
        self.uncorrectable.lock().push((error, *header));
    }

    fn inject_correctable(&self, error: Correctable) {
        self.correctable.lock().push(error);
    }

    fn inject_event(&self, log: Log, record: Record) {
        self.events.lock().push((log, record));
    }

    /// Returns the number of earlier requests. Opcode 0 is unknown.
    fn fail_command(&self, failure: CommandFailure) -> Result<u64, FailureError> {
        if failure.opcode == 0 {
            return Err(FailureError::Unknown(0));
        }
        let mut failures = self.failures.lock();
        failures.push(failure);
        Ok(failures.len() as u64 - 1)
    }

    /// Returns the number of earlier requests. Opcode 0 is unknown.
    fn delay_command(&self, delay: CommandDelay) -> Result<u64, DelayError> {
        if delay.opcode == 0 {
            return Err(DelayError::Unknown(0));
        }
        let mut delays = self.delays.lock();
        delays.push(delay);
        Ok(delays.len() as u64 - 1)
    }

    /// Returns the number of earlier requests. There is no vector 16.
    fn lose_interrupt(&self, vector: u16, count: u64) -> Result<u64, LoseError> {
        if vector == 16 {
            return Err(LoseError::NoVector(16));
        }
        let mut losses = self.losses.lock();
        losses.push((vector, count));
        Ok(losses.len() as u64 - 1)
    }
}

/// A window without memory that counts its flushes.
#[derive(Default)]
pub(crate) struct Counting(AtomicU32);

impl Counting {
    pub(crate) fn flushes(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Window for Counting {
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read(&self, _dpa: u64, _data: &mut [u8]) {}

    fn write(&self, _dpa: u64, _data: &[u8]) {}

    fn flush(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn invalidate(&self, _dpa: std::ops::Range<u64>) {}

    fn resident(&self) -> Resident {
        Resident::default()
    }
}

/// A running server. Stopped when dropped, and then it must have ended well.
pub(crate) struct Rig {
    pub(crate) media: Arc<Media>,
    pub(crate) events: Events,
    pub(crate) injected: Arc<Injected>,
    pub(crate) stop: Stop,
    pub(crate) path: PathBuf,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    _directory: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let server = Server::bind(&path).unwrap();
        let watermarks = Watermarks { low: Threshold::Percent(20.0), high: Threshold::Percent(50.0) };
        let config = MediaConfig { capacity: CAPACITY, physical: PHYSICAL, codec: Codec::Lz4, watermarks };
        let media = Media::new(&config).unwrap();
        let events = Events::new().unwrap();
        media.add_listener({
            let events = events.clone();
            move |event| events.media(event)
        });
        let stop = Stop::new().unwrap();
        let injected = Arc::new(Injected::default());
        let commands = DeviceCommands {
            media: media.clone(),
            injector: injected.clone(),
            interrupts: Arc::new(Interrupts::new()),
            stop: stop.clone(),
            codec: Codec::Lz4,
            window: "trap",
        };
        let thread = std::thread::spawn({
            let (events, stop) = (events.clone(), stop.clone());
            move || server.run(&commands, &events, &stop)
        });
        Self { media, events, injected, stop, path, thread: Some(thread), _directory: directory }
    }

    /// A client that has read the greeting and negotiated.
    pub(crate) fn client(&self) -> Peer {
        let mut peer = self.stranger();
        assert!(peer.receive()["QMP"].is_object());
        assert_eq!(peer.request(json!({"execute": "qmp_capabilities"})), json!({"return": {}}));
        peer
    }

    /// A client that has read nothing yet.
    pub(crate) fn stranger(&self) -> Peer {
        let stream = UnixStream::connect(&self.path).unwrap();
        // So that a server that does not answer fails the test instead of hanging it.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Peer { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// Gives the medium a window that counts its flushes.
    pub(crate) fn counting_window(&self) -> Arc<Counting> {
        let window = Arc::new(Counting::default());
        self.media.set_window(&window);
        window
    }

    /// Fills the medium with blocks that do not compress.
    pub(crate) fn fill(&self, blocks: std::ops::Range<u64>) {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for block in blocks {
            let mut data = [0; 4096];
            for word in data.as_chunks_mut::<8>().0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *word = state.to_ne_bytes();
            }
            self.media.store(block, &data);
        }
    }

    /// Waits for the server to end by itself.
    pub(crate) fn join(&mut self) {
        self.thread.take().unwrap().join().expect("the server does not panic").expect("the server ends well");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.thread.is_some() && !std::thread::panicking() {
            self.stop.trigger();
            self.join();
        }
    }
}

/// A client.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    pub(crate) reader: BufReader<UnixStream>,
}

impl Peer {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the server closed the connection instead of answering");
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn request(&mut self, request: Value) -> Value {
        self.send(request.to_string().as_bytes());
        self.receive()
    }

    /// A command that must succeed.
    pub(crate) fn execute(&mut self, name: &str, arguments: Value) -> Value {
        let mut answer = self.request(json!({"execute": name, "arguments": arguments}));
        assert!(answer["error"].is_null(), "{name} {arguments}: {answer}");
        answer["return"].take()
    }

    /// A command that must fail: the class and the sentence.
    pub(crate) fn refused(&mut self, request: Value) -> (String, String) {
        let answer = self.request(request);
        let text = |name: &str| answer["error"][name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (text("class"), text("desc"))
    }

    pub(crate) fn expect_closed(&mut self) {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("the server did not close the connection: {other:?} {line}"),
        }
    }
}
