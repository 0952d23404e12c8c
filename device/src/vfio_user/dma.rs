//! DMA_MAP and DMA_UNMAP: the client's tables of guest memory.
//!
//! The device makes no DMA, so the memory is never mapped and the descriptors are closed at once. The ranges are
//! kept only to answer as the protocol asks: no overlap, and no unmapping of a range that is not mapped.

use std::collections::BTreeMap;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_DMA_UNMAP_FLAG_ALL, VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
};

use super::message::{Fields, PutFields};

/// Ranges kept for a client: the protocol's default for `max_dma_maps`, about 2 MiB at worst.
const MAX_DMA_MAPS: usize = 65535;

/// Bytes of the structures, without the header.
const MAP_LEN: u32 = 32;
const UNMAP_LEN: u32 = 24;

/// The mapped ranges, first address to length. They do not overlap.
#[derive(Default)]
pub(super) struct DmaTable(BTreeMap<u64, u64>);

impl DmaTable {
    /// DMA_MAP: argsz, flags, offset in the file, address, size. The reply is empty.
    pub(super) fn map(&mut self, payload: &[u8], fds: usize) -> Result<(), Errno> {
        let mut fields = Fields::new(payload);
        fields.argsz(MAP_LEN)?;
        let flags = fields.u32()?;
        let offset = fields.u64()?;
        let address = fields.u64()?;
        let size = fields.u64()?;
        let known = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
        if flags & !known != 0 || flags & known == 0 || fds > 1 || size == 0 {
            return Err(Errno::INVAL);
        }
        let end = address.checked_add(size).ok_or(Errno::INVAL)?;
        offset.checked_add(size).ok_or(Errno::INVAL)?;
        if self.overlaps(address, end) {
            return Err(Errno::EXIST);
        }
        if self.0.len() >= MAX_DMA_MAPS {
            return Err(Errno::NOSPC);
        }
        self.0.insert(address, size);
        Ok(())
    }

    /// DMA_UNMAP: argsz, flags, address, size. The reply repeats them, with the size that was unmapped. A range may
    /// cover several mappings but must not cut one.
    pub(super) fn unmap(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
        let mut fields = Fields::new(payload);
        fields.argsz(UNMAP_LEN)?;
        let flags = fields.u32()?;
        let address = fields.u64()?;
        let size = fields.u64()?;
        let unmapped = match flags {
            0 => self.remove(address, size)?,
            VFIO_DMA_UNMAP_FLAG_ALL if address == 0 && size == 0 => {
                std::mem::take(&mut self.0).into_values().fold(0, u64::saturating_add)
            }
            _ if flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP != 0 => return Err(Errno::NOTSUP),
            _ => return Err(Errno::INVAL),
        };
        out.put_u32(UNMAP_LEN);
        out.put_u32(flags);
        out.put_u64(address);
        out.put_u64(unmapped);
        Ok(())
    }

    fn remove(&mut self, address: u64, size: u64) -> Result<u64, Errno> {
        let end = address.checked_add(size).ok_or(Errno::INVAL)?;
        let inside: Vec<(u64, u64)> = self.0.range(address..end).map(|(start, len)| (*start, *len)).collect();
        let cuts_first = self.0.range(..address).next_back().is_some_and(|(start, len)| start + len > address);
        let cuts_last = inside.last().is_some_and(|(start, len)| start + len > end);
        if cuts_first || cuts_last {
            return Err(Errno::INVAL);
        }
        if inside.is_empty() {
            return Err(Errno::NOENT);
        }
        for (start, _) in &inside {
            self.0.remove(start);
        }
        Ok(inside.iter().map(|(_, len)| len).sum())
    }

    fn overlaps(&self, address: u64, end: u64) -> bool {
        // The ranges do not overlap one another, so the last that begins before `end` is the one that reaches furthest.
        self.0.range(..end).next_back().is_some_and(|(start, len)| start + len > address)
    }
}
