//! What the fuzz targets share: one small device for the whole process, and a way to read structure out of fuzzer bytes.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, LazyLock},
    thread,
};

use cxl_cram_device::{
    cxl::{Type3, Type3Config},
    hdm::{
        Window,
        media::{Media, MediaConfig, Threshold, Watermarks},
        trap::TrapWindow,
    },
    serve::{Board, MsixWire},
    store::Codec,
    vfio_user::Interrupts,
};

/// The codec of the device.
pub const CODEC: Codec = Codec::Lz4;

/// A device without a FUSE mount: every access to its memory goes through the trap window.
pub struct Device {
    /// Its medium: 256 MiB promised, 1 MiB of media.
    pub media: Arc<Media>,
    /// Its PCI function.
    pub function: Arc<Type3>,
    /// Its interrupts, of which no client has armed any.
    pub interrupts: Arc<Interrupts>,
    /// The whole of it, as the wire sees it.
    pub board: Arc<Board>,
}

/// The device. It is expensive to make, so all inputs share it; [`Device::power_cycle`] brings it back to its first state.
pub static DEVICE: LazyLock<Device> = LazyLock::new(|| {
    let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
    let config = MediaConfig { capacity: 256 << 20, physical: 1 << 20, codec: CODEC, watermarks };
    let media = Media::new(&config).expect("the medium is valid");
    let interrupts = Arc::new(Interrupts::new());
    let msix = Arc::new(MsixWire::new(&interrupts));
    let function = Type3::new(&Type3Config::default(), Arc::clone(&media), msix);
    let window: Arc<dyn Window> = TrapWindow::new(Arc::clone(&media));
    let board = Board::new(Arc::clone(&function), Arc::clone(&media), window);
    Device { media, function, interrupts, board }
});

impl Device {
    /// Empties the medium and resets every register, as a new client does.
    pub fn power_cycle(&self) {
        self.function.reset();
        self.media.power_cycle();
        self.media.wait_until_clear();
        self.function.power_on();
    }
}

/// The fuzzer's bytes, read from the front. Reading past the end gives zeros, so that every input means something.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// Whether all bytes have been read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.slice(1).first().copied().unwrap_or_default()
    }

    /// Two bytes, little endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// Up to `length` bytes.
    pub fn slice(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Sends everything, discards every answer, and returns once the server has closed the connection.
///
/// Answers are read while the bytes are sent: otherwise server and client could each wait for the other to read.
pub fn converse(mut stream: UnixStream, bytes: &[u8]) -> io::Result<()> {
    let mut answers = stream.try_clone()?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = [0; 4096];
            while answers.read(&mut buffer).is_ok_and(|got| got > 0) {}
        });
        // A server that closes the connection early has answered too.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
    });
    Ok(())
}
