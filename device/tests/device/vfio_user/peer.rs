//! The other end of the socket: a device to serve, a server to run, and a client that can send anything.

use std::{
    io::{IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use cxl_cram_device::vfio_user::{Backend, Interrupts, Patience, Region, Server, Stop};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, ftruncate, memfd_create},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const GET_INFO: u16 = 4;
pub(crate) const GET_REGION_INFO: u16 = 5;
pub(crate) const GET_REGION_IO_FDS: u16 = 6;
pub(crate) const GET_IRQ_INFO: u16 = 7;
pub(crate) const SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const RESET: u16 = 13;
pub(crate) const NO_REPLY: u32 = 1 << 4;

pub(crate) const BAR0: u32 = 0;
pub(crate) const BAR2: u32 = 2;
/// A region that exists and may be neither read nor written.
pub(crate) const SEALED: u32 = 4;
pub(crate) const ROM: u32 = 6;
pub(crate) const CONFIG: u32 = 7;
pub(crate) const BAR0_LEN: u64 = 0x1000;
/// Larger than a message may be.
pub(crate) const BAR2_LEN: u64 = 0x40_0000;
pub(crate) const BAR2_MMAP_LEN: u64 = 0x20_0000;
/// The offset in BAR0 whose accesses fail with `EIO`.
pub(crate) const FAILING: u64 = 0xff0;
pub(crate) const MSIX: u32 = 2;
pub(crate) const VECTORS: u32 = 20;

/// The calls that the server made to the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Connected,
    Gone,
    Reset,
    Armed(u32, u32),
    Write(u32, u64, Vec<u8>),
}

/// A PCI function of memory only: 1234:5678, a plain BAR0, a mappable BAR2 and MSI-X.
pub(crate) struct TestDevice {
    config: Mutex<Vec<u8>>,
    bar0: Mutex<Vec<u8>>,
    pub(crate) bar2: OwnedFd,
    calls: Mutex<Vec<Call>>,
    called: Condvar,
}

/// Configuration space after a reset.
fn reset_config() -> Vec<u8> {
    let mut config = vec![0u8; 0x1000];
    config[0x00..0x04].copy_from_slice(&[0x34, 0x12, 0x78, 0x56]);
    config[0x06] = 0x10; // has capabilities
    config[0x0b] = 0xff; // class: none of the others
    config[0x18] = 0x0c; // BAR2: 64 bit, prefetchable
    config[0x34] = 0x40;
    // MSI-X: VECTORS entries, table at BAR0 + 0, pending bits at BAR0 + 0x800.
    config[0x40..0x4c].copy_from_slice(&[0x11, 0, VECTORS as u8 - 1, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    config
}

impl TestDevice {
    fn new() -> Self {
        let bar2 = memfd_create("bar2", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&bar2, BAR2_LEN).unwrap();
        Self {
            config: Mutex::new(reset_config()),
            bar0: Mutex::new(vec![0; BAR0_LEN as usize]),
            bar2,
            calls: Mutex::default(),
            called: Condvar::new(),
        }
    }

    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
        self.called.notify_all();
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn forget_calls(&self) {
        self.calls.lock().unwrap().clear();
    }

    /// Waits until the device was called so, `times` times in all.
    pub(crate) fn wait_for(&self, call: &Call, times: usize) {
        let calls = self.calls.lock().unwrap();
        let missing = |calls: &mut Vec<Call>| calls.iter().filter(|made| *made == call).count() < times;
        let (calls, wait) = self.called.wait_timeout_while(calls, Duration::from_secs(60), missing).unwrap();
        assert!(!wait.timed_out(), "the device was never called so: {call:?}; only {calls:?}");
    }
}

impl Backend for TestDevice {
    fn regions(&self) -> [Region; 9] {
        let mut regions: [Region; 9] = Default::default();
        regions[BAR0 as usize] = Region { size: BAR0_LEN, access: true, mmap_len: 0 };
        regions[BAR2 as usize] = Region { size: BAR2_LEN, access: true, mmap_len: BAR2_MMAP_LEN };
        regions[SEALED as usize] = Region { size: 0x1000, access: false, mmap_len: 0 };
        regions[CONFIG as usize] = Region { size: 0x1000, access: true, mmap_len: 0 };
        regions
    }

    fn irq_counts(&self) -> [u32; 5] {
        [0, 0, VECTORS, 1, 0]
    }

    fn mmap_fd(&self, region: u32) -> Option<BorrowedFd<'_>> {
        (region == BAR2).then(|| self.bar2.as_fd())
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let at = offset as usize;
        match region {
            BAR0 if offset == FAILING => return Err(Errno::IO),
            BAR0 => data.copy_from_slice(&self.bar0.lock().unwrap()[at..at + data.len()]),
            BAR2 => assert_eq!(rustix::io::pread(&self.bar2, &mut *data, offset), Ok(data.len())),
            CONFIG => data.copy_from_slice(&self.config.lock().unwrap()[at..at + data.len()]),
            other => panic!("the server let a read of region {other} through"),
        }
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let at = offset as usize;
        match region {
            BAR0 if offset == FAILING => return Err(Errno::IO),
            BAR0 => self.bar0.lock().unwrap()[at..at + data.len()].copy_from_slice(data),
            BAR2 => assert_eq!(rustix::io::pwrite(&self.bar2, data, offset), Ok(data.len())),
            CONFIG => self.config.lock().unwrap()[at..at + data.len()].copy_from_slice(data),
            other => panic!("the server let a write of region {other} through"),
        }
        self.note(Call::Write(region, offset, data.to_vec()));
        Ok(())
    }

    fn reset(&self) {
        self.note(Call::Reset);
    }

    fn irq_armed(&self, index: u32, vector: u32) {
        self.note(Call::Armed(index, vector));
    }

    fn client_connected(&self) {
        self.note(Call::Connected);
    }

    fn client_gone(&self) {
        *self.config.lock().unwrap() = reset_config();
        self.note(Call::Gone);
    }
}

/// A running server. Stopped when dropped, and then it must have ended well.
pub(crate) struct Rig {
    pub(crate) device: Arc<TestDevice>,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) stop: Stop,
    path: PathBuf,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    _directory: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::with_patience(Patience::default())
    }

    pub(crate) fn with_patience(patience: Patience) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device.sock");
        let server = Server::bind(&path).unwrap().with_patience(patience);
        let device = Arc::new(TestDevice::new());
        let interrupts = Arc::new(Interrupts::new());
        let stop = Stop::new().unwrap();
        let thread = std::thread::spawn({
            let (device, interrupts, stop) = (device.clone(), interrupts.clone(), stop.clone());
            move || server.run(&*device, &interrupts, &stop)
        });
        Self { device, interrupts, stop, path, thread: Some(thread), _directory: directory }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A client that has negotiated its version.
    pub(crate) fn client(&self) -> Peer {
        let peer = self.stranger();
        let reply = peer.request(VERSION, &version_payload("{}"));
        assert_eq!(reply.error, None);
        peer
    }

    /// A client that has sent nothing yet.
    pub(crate) fn stranger(&self) -> Peer {
        Peer::connect(&self.path)
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

/// A client that sends any bytes.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
}

/// A reply as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) id: u16,
    pub(crate) command: u16,
    pub(crate) error: Option<Errno>,
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Reply {
    pub(crate) fn u32_at(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.payload[offset..offset + 4].try_into().unwrap())
    }

    pub(crate) fn u64_at(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.payload[offset..offset + 8].try_into().unwrap())
    }
}

impl Peer {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        // So that a server that does not answer fails the test instead of hanging it.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }

    pub(crate) fn send_with_fds(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        assert!(self.try_send_with_fds(bytes, fds));
    }

    /// False if the server has closed the connection.
    pub(crate) fn try_send_with_fds(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) == Ok(bytes.len())
    }

    pub(crate) fn receive(&self) -> Reply {
        let mut header = [0u8; 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got =
            recvmsg(&self.stream, &mut [IoSliceMut::new(&mut header)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        assert_ne!(got.bytes, 0, "the server closed the connection instead of answering");
        (&self.stream).read_exact(&mut header[got.bytes..]).unwrap();
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!(word(8) & 0xf, 1, "it is a reply");
        let failed = word(8) & 0x20 != 0;
        let mut payload = vec![0; word(4) as usize - 16];
        (&self.stream).read_exact(&mut payload).unwrap();
        assert!(failed || word(12) == 0);
        Reply {
            id: u16::from_ne_bytes([header[0], header[1]]),
            command: u16::from_ne_bytes([header[2], header[3]]),
            error: failed.then(|| Errno::from_raw_os_error(word(12) as i32)),
            payload,
            fds,
        }
    }

    pub(crate) fn request(&self, command: u16, payload: &[u8]) -> Reply {
        self.send(&message(command, payload));
        self.receive()
    }

    pub(crate) fn request_with_fds(&self, command: u16, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Reply {
        self.send_with_fds(&message(command, payload), fds);
        self.receive()
    }

    pub(crate) fn read(&self, region: u32, offset: u64, count: u32) -> Reply {
        self.request(REGION_READ, &access_payload(region, offset, count, &[]))
    }

    pub(crate) fn write(&self, region: u32, offset: u64, data: &[u8]) -> Reply {
        self.request(REGION_WRITE, &access_payload(region, offset, data.len() as u32, data))
    }

    /// Waits for the server to close the connection; it must not say anything before.
    pub(crate) fn expect_closed(&self) {
        match (&self.stream).read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("the server did not close the connection: {other:?}"),
        }
    }

    /// The whole of a working conversation.
    pub(crate) fn expect_working(&self) {
        assert_eq!(self.read(CONFIG, 0, 4).payload[16..], [0x34, 0x12, 0x78, 0x56]);
    }
}

/// A message with its header.
pub(crate) fn message(command: u16, payload: &[u8]) -> Vec<u8> {
    message_with_flags(command, 0, payload)
}

pub(crate) fn message_with_flags(command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(command, 16 + payload.len() as u32, flags).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) fn header(command: u16, size: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0..2].copy_from_slice(&0x5a5au16.to_ne_bytes());
    bytes[2..4].copy_from_slice(&command.to_ne_bytes());
    bytes[4..8].copy_from_slice(&size.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// VERSION 0.0 with this JSON, padded as JSON may be so that a full reply has room.
pub(crate) fn version_payload(json: &str) -> Vec<u8> {
    let mut payload = vec![0; 4];
    payload.extend_from_slice(format!("{json:<200}").as_bytes());
    payload.push(0);
    payload
}

pub(crate) fn access_payload(region: u32, offset: u64, count: u32, data: &[u8]) -> Vec<u8> {
    let mut payload = offset.to_ne_bytes().to_vec();
    payload.extend_from_slice(&words(&[region, count]));
    payload.extend_from_slice(data);
    payload
}

/// A payload of 32-bit fields.
pub(crate) fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

pub(crate) fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// Edges signalled since the last call.
pub(crate) fn edges(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(eventfd, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(Errno::AGAIN) => 0,
        Err(error) => panic!("not an eventfd: {error}"),
    }
}
