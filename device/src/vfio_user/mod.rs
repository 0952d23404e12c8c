//! The wire to QEMU: a vfio-user server that checks every message before it acts. Knows no CXL.
//!
//! [`Server`] listens on a UNIX socket and serves one client at a time. It serves a [`Backend`], which
//! signals the client through [`Interrupts`]; [`Stop`] ends it. Protocol: vfio-user 0.0 as QEMU >= 10.1
//! speaks it (`hw/vfio-user`), with the structures and constants of `linux/vfio.h`.
//!
//! The server is own code. The `vfio_user` crate (0.1.7) has one too, which a device cannot rely on: it panics on a VERSION
//! message that is too short, drops the errno of a failed access, and allocates whatever count a client sends. The
//! tests use its *client*, an implementation that is not ours.
//!
//! A malformed message gets an error reply with an errno. When it is no longer known where the next message begins,
//! the connection is closed. Either way the server continues with the next message or the next client.

mod connection;
mod descriptors;
mod dma;
mod door;
mod irqs;
mod message;
mod regions;
mod server;
mod session;
pub(crate) mod socket;
mod stop;
mod version;

use std::{os::fd::BorrowedFd, time::Duration};

pub use irqs::Interrupts;
pub use server::Server;
pub use socket::BindError;
pub use stop::{Stop, StopOnDrop};

/// How long a client may keep the server waiting when another client comes. A client that has agreed on a version and is not
/// in the middle of a message may always take its time: a QEMU in a debugger keeps its device.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the connection to VERSION, which QEMU sends at once.
    pub version: Duration,
    /// In the middle of a message, or of a reply, from one part to the next.
    pub message: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { version: Duration::from_secs(5), message: Duration::from_secs(60) }
    }
}

/// A region as reported by GET_REGION_INFO. Its index is its position in [`Backend::regions`].
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// Bytes; 0 for a region that does not exist.
    pub size: u64,
    /// Whether it may be read and written.
    pub access: bool,
    /// Bytes from its start that the client may map from [`Backend::mmap_fd`]; 0 for none.
    pub mmap_len: u64,
}

/// The device that the server serves. Ranges are inside the region when these are called; lengths are at least 1 and at most
/// the negotiated `max_data_xfer_size`. All are called from the thread that is in [`Server::run`].
pub trait Backend: Send + Sync {
    /// The nine VFIO PCI regions (BAR0..BAR5, ROM, configuration, VGA). Asked once a client.
    fn regions(&self) -> [Region; 9];

    /// Vectors of each VFIO PCI interrupt index (INTX, MSI, MSI-X, ERR, REQ). Asked once a client.
    fn irq_counts(&self) -> [u32; 5];

    /// The file behind a mappable region.
    fn mmap_fd(&self, region: u32) -> Option<BorrowedFd<'_>>;

    /// REGION_READ.
    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), rustix::io::Errno>;

    /// REGION_WRITE.
    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), rustix::io::Errno>;

    /// DEVICE_RESET.
    fn reset(&self);

    /// A client has armed a vector (an eventfd was set, or it was unmasked). From here on [`Interrupts::raise`] reaches the
    /// client.
    fn irq_armed(&self, index: u32, vector: u32);

    /// A client has negotiated its version.
    fn client_connected(&self);

    /// The client has disconnected; its eventfds and mappings are already dropped. Only called after
    /// [`Self::client_connected`].
    ///
    /// The function must now be as after a reset: the next QEMU assumes that the state it finds in configuration space
    /// is the function's own (an MSI-X enable bit left set keeps it from ever enabling MSI-X).
    fn client_gone(&self);
}
