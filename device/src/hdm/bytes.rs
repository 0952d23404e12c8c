//! Accesses of any length and alignment on a medium that knows only blocks.

use parking_lot::Mutex;

use super::media::Media;
use crate::store::{BLOCK_SIZE, Block};

/// Locks that make the read-modify-write of a part of a block one step; blocks share them by their low bits.
const LOCKS: usize = 64;

/// The blocks of a medium as bytes.
#[derive(Debug)]
pub(super) struct Bytes {
    locks: [Mutex<()>; LOCKS],
}

impl Bytes {
    pub(super) fn new() -> Self {
        Self { locks: [const { Mutex::new(()) }; LOCKS] }
    }

    /// Reads bytes as the guest must see them.
    pub(super) fn read(&self, media: &Media, dpa: u64, mut data: &mut [u8]) {
        let (mut block, mut skip) = (dpa / BLOCK_SIZE as u64, (dpa % BLOCK_SIZE as u64) as usize);
        while !data.is_empty() {
            let (part, rest) = data.split_at_mut(data.len().min(BLOCK_SIZE - skip));
            match <&mut Block>::try_from(&mut *part) {
                Ok(whole) => media.load(block, whole),
                Err(_) => media.load_part(block, skip..skip + part.len(), part),
            }
            (data, block, skip) = (rest, block + 1, 0);
        }
    }

    /// Writes bytes; a block that is covered in part is read first, which is no load of the guest's.
    pub(super) fn write(&self, media: &Media, dpa: u64, mut data: &[u8]) {
        let (mut block, mut skip) = (dpa / BLOCK_SIZE as u64, (dpa % BLOCK_SIZE as u64) as usize);
        while !data.is_empty() {
            let (part, rest) = data.split_at(data.len().min(BLOCK_SIZE - skip));
            let _serial = self.locks[(block % LOCKS as u64) as usize].lock();
            match <&Block>::try_from(part) {
                Ok(whole) => media.store(block, whole),
                Err(_) => {
                    let mut buffer = [0; BLOCK_SIZE];
                    media.fetch(block, &mut buffer);
                    buffer[skip..skip + part.len()].copy_from_slice(part);
                    media.store(block, &buffer);
                }
            }
            (data, block, skip) = (rest, block + 1, 0);
        }
    }
}
