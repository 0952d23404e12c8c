//! Accesses of any length and alignment on a medium that knows only blocks.

use super::media::Media;
use crate::store::{BLOCK_SIZE, Block};

/// Reads bytes as the guest must see them.
pub(super) fn read(media: &Media, dpa: u64, mut data: &mut [u8]) {
    let (mut block, mut skip) = first(dpa);
    while !data.is_empty() {
        let (part, rest) = data.split_at_mut(data.len().min(BLOCK_SIZE - skip));
        match <&mut Block>::try_from(&mut *part) {
            Ok(whole) => media.load(block, whole),
            Err(_) => media.load_part(block, skip..skip + part.len(), part),
        }
        (data, block, skip) = (rest, block + 1, 0);
    }
}

/// Writes bytes.
pub(super) fn write(media: &Media, dpa: u64, mut data: &[u8]) {
    let (mut block, mut skip) = first(dpa);
    while !data.is_empty() {
        let (part, rest) = data.split_at(data.len().min(BLOCK_SIZE - skip));
        match <&Block>::try_from(part) {
            Ok(whole) => media.store(block, whole),
            Err(_) => media.store_part(block, skip..skip + part.len(), part),
        }
        (data, block, skip) = (rest, block + 1, 0);
    }
}

/// The block that an access begins in, and the bytes of the block before it.
fn first(dpa: u64) -> (u64, usize) {
    (dpa / BLOCK_SIZE as u64, (dpa % BLOCK_SIZE as u64) as usize)
}
