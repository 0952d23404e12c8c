//! Little-endian fields at byte offsets.
//!
//! Payloads and records are written the way the specification's tables give them: offset, then value. Reading is
//! checked, because the bytes come from the guest.

/// Bytes being laid out: each method puts one field at its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout(Vec<u8>);

impl Layout {
    /// `len` zero bytes.
    pub(super) fn zeroed(len: usize) -> Self {
        Self(vec![0; len])
    }

    /// Copies bytes to an offset. Both are constants of the caller; they lie inside.
    pub(super) fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn u8(self, at: usize, value: u8) -> Self {
        self.bytes(at, &[value])
    }

    pub(super) fn u16(self, at: usize, value: u16) -> Self {
        self.bytes(at, &value.to_le_bytes())
    }

    pub(super) fn u24(self, at: usize, value: u32) -> Self {
        self.bytes(at, &value.to_le_bytes()[..3])
    }

    pub(super) fn u32(self, at: usize, value: u32) -> Self {
        self.bytes(at, &value.to_le_bytes())
    }

    pub(super) fn u64(self, at: usize, value: u64) -> Self {
        self.bytes(at, &value.to_le_bytes())
    }

    /// Adds bytes at the end: the elements of a variable list.
    pub(super) fn then(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes as an array of exactly this length.
    pub(super) fn array<const N: usize>(&self) -> [u8; N] {
        std::array::from_fn(|at| self.0.get(at).copied().unwrap_or(0))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The field at an offset, `None` past the end.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Copies the part of `register` (which starts at `base`) that a read of `data.len()` bytes at `offset` touches.
/// Partial and straddling accesses end here.
pub(super) fn copy_overlap(base: u64, register: &[u8], offset: u64, data: &mut [u8]) {
    let end = offset.saturating_add(data.len() as u64);
    let start = base.max(offset);
    let stop = (base + register.len() as u64).min(end);
    if start < stop {
        let from = (start - base) as usize..(stop - base) as usize;
        let to = (start - offset) as usize..(stop - offset) as usize;
        data[to].copy_from_slice(&register[from]);
    }
}
