//! What a message looks like: header, commands, limits, and a reader that cannot run past the end.

use rustix::io::Errno;

/// Bytes of the header that every message begins with.
pub(super) const HEADER_LEN: usize = 16;

/// Bytes in front of the data of REGION_READ and REGION_WRITE: offset, region, count.
pub(super) const REGION_ACCESS_LEN: usize = 16;

/// Bytes of data that this server moves in one message, offered as `max_data_xfer_size`.
pub(super) const MAX_DATA_XFER: u32 = 1 << 20;

/// The longest message: a REGION_WRITE with as much data as may be.
pub(super) const MAX_MESSAGE: usize = HEADER_LEN + REGION_ACCESS_LEN + MAX_DATA_XFER as usize;

/// File descriptors taken with one message; what this server offers as `max_msg_fds`.
pub(super) const MAX_MSG_FDS: usize = 16;

/// The low four bits of the flags: what kind of message it is.
const FLAG_TYPE: u32 = 0xf;
const TYPE_COMMAND: u32 = 0;
const TYPE_REPLY: u32 = 1;
const FLAG_NO_REPLY: u32 = 1 << 4;
const FLAG_ERROR: u32 = 1 << 5;

/// The commands this server carries out. All others are answered with ENOTSUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Version,
    DmaMap,
    DmaUnmap,
    DeviceGetInfo,
    DeviceGetRegionInfo,
    DeviceGetRegionIoFds,
    DeviceGetIrqInfo,
    DeviceSetIrqs,
    RegionRead,
    RegionWrite,
    DeviceReset,
}

impl Command {
    fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Version,
            2 => Self::DmaMap,
            3 => Self::DmaUnmap,
            4 => Self::DeviceGetInfo,
            5 => Self::DeviceGetRegionInfo,
            6 => Self::DeviceGetRegionIoFds,
            7 => Self::DeviceGetIrqInfo,
            8 => Self::DeviceSetIrqs,
            9 => Self::RegionRead,
            10 => Self::RegionWrite,
            // 11 DMA_READ and 12 DMA_WRITE go from server to client; 14 is DIRTY_PAGES, 15 REGION_WRITE_MULTI.
            13 => Self::DeviceReset,
            _ => return None,
        })
    }
}

/// The header. All fields are in host byte order: both ends are on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u16,
    /// The command's number, known or not.
    pub(super) number: u16,
    /// Bytes of the whole message.
    pub(super) size: u32,
    pub(super) flags: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let [i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, ..] = *bytes;
        Self {
            id: u16::from_ne_bytes([i0, i1]),
            number: u16::from_ne_bytes([c0, c1]),
            size: u32::from_ne_bytes([s0, s1, s2, s3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
        }
    }

    /// Bytes that follow the header, or `None` when the size is impossible and framing is lost.
    pub(super) fn payload_len(&self) -> Option<usize> {
        let size = usize::try_from(self.size).ok()?;
        if size > MAX_MESSAGE { None } else { size.checked_sub(HEADER_LEN) }
    }

    /// Whether this is a command. This server sends none, so a reply can only be a confused client.
    pub(super) fn is_command(&self) -> bool {
        self.flags & FLAG_TYPE == TYPE_COMMAND
    }

    pub(super) fn wants_reply(&self) -> bool {
        self.flags & FLAG_NO_REPLY == 0
    }

    pub(super) fn command(&self) -> Option<Command> {
        Command::from_number(self.number)
    }

    /// Writes the header of the reply into the first bytes of `reply`, which is the whole reply.
    pub(super) fn finish_reply(&self, reply: &mut [u8]) {
        self.put(reply, TYPE_REPLY, 0);
    }

    /// The error reply with this errno.
    pub(super) fn error_reply(&self, errno: Errno) -> [u8; HEADER_LEN] {
        let mut reply = [0; HEADER_LEN];
        self.put(&mut reply, TYPE_REPLY | FLAG_ERROR, errno.raw_os_error().unsigned_abs());
        reply
    }

    fn put(&self, reply: &mut [u8], flags: u32, errno: u32) {
        // A reply is a header and at most MAX_DATA_XFER: its length fits.
        let size = u32::try_from(reply.len()).unwrap_or(u32::MAX);
        reply[0..2].copy_from_slice(&self.id.to_ne_bytes());
        reply[2..4].copy_from_slice(&self.number.to_ne_bytes());
        reply[4..8].copy_from_slice(&size.to_ne_bytes());
        reply[8..12].copy_from_slice(&flags.to_ne_bytes());
        reply[12..16].copy_from_slice(&errno.to_ne_bytes());
    }
}

/// Reads a payload field by field; `EINVAL` where it ends too early.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Errno> {
        self.take().map(u16::from_ne_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_ne_bytes)
    }

    /// The `argsz` that VFIO structures begin with: bytes the client has for the structure, at least `least`.
    pub(super) fn argsz(&mut self, least: u32) -> Result<u32, Errno> {
        self.u32().and_then(|argsz| if argsz < least { Err(Errno::INVAL) } else { Ok(argsz) })
    }

    /// What is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Builds a payload field by field.
pub(super) trait PutFields {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
}

impl PutFields for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_ne_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_ne_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_ne_bytes());
    }
}
