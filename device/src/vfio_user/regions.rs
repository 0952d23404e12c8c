//! GET_REGION_INFO, GET_REGION_IO_FDS, REGION_READ and REGION_WRITE.

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};

use super::{
    Region,
    message::{Fields, PutFields, REGION_ACCESS_LEN},
};

/// Bytes of `struct vfio_region_info`.
const INFO_LEN: u32 = 32;
/// Bytes of a sparse-mmap capability with one area: capability header 8, area count and padding 8, area 16.
const SPARSE_LEN: u32 = 32;
/// Bytes of the GET_REGION_IO_FDS structure: argsz, flags, index, count.
const IO_FDS_LEN: u32 = 16;

/// The region of this index.
pub(super) fn at(regions: &[Region], index: u32) -> Result<&Region, Errno> {
    usize::try_from(index).ok().and_then(|index| regions.get(index)).ok_or(Errno::INVAL)
}

/// GET_REGION_INFO. Returns the index of the region whose descriptor goes with the reply, if one does.
///
/// A mappable region has a capability behind the structure. A client whose `argsz` has no room for it gets the
/// structure alone, with the `argsz` to ask again with. `cap_offset` is set in both: QEMU refuses the flag without it.
pub(super) fn info(regions: &[Region], payload: &[u8], out: &mut Vec<u8>) -> Result<Option<u32>, Errno> {
    let mut fields = Fields::new(payload);
    let argsz = fields.argsz(INFO_LEN)?;
    let _flags = fields.u32()?;
    let index = fields.u32()?;
    let region = at(regions, index)?;

    let mappable = region.mmap_len > 0;
    let needed = if mappable { INFO_LEN + SPARSE_LEN } else { INFO_LEN };
    let mut flags = 0;
    if region.access && region.size > 0 {
        flags |= VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    }
    if mappable {
        flags |= VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
    }
    out.put_u32(needed);
    out.put_u32(flags);
    out.put_u32(index);
    out.put_u32(if mappable { INFO_LEN } else { 0 });
    out.put_u64(region.size);
    out.put_u64(0); // where the region begins in the descriptor
    if !mappable || argsz < needed {
        return Ok(None);
    }
    out.put_u16(VFIO_REGION_INFO_CAP_SPARSE_MMAP as u16);
    out.put_u16(1); // version
    out.put_u32(0); // no next capability
    out.put_u32(1); // one area
    out.put_u32(0);
    out.put_u64(0);
    out.put_u64(region.mmap_len);
    Ok(Some(index))
}

/// GET_REGION_IO_FDS: no part of any region has a descriptor of its own, every access is a message.
pub(super) fn io_fds(regions: &[Region], payload: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
    let mut fields = Fields::new(payload);
    fields.argsz(IO_FDS_LEN)?;
    let flags = fields.u32()?;
    let index = fields.u32()?;
    at(regions, index)?;
    if flags != 0 {
        return Err(Errno::INVAL);
    }
    out.put_u32(IO_FDS_LEN);
    out.put_u32(0);
    out.put_u32(index);
    out.put_u32(0);
    Ok(())
}

/// A REGION_READ or REGION_WRITE that lies inside its region.
pub(super) struct Access<'a> {
    pub(super) offset: u64,
    pub(super) region: u32,
    pub(super) count: u32,
    /// What follows the three fields: empty for a read, `count` bytes for a write.
    pub(super) data: &'a [u8],
}

impl<'a> Access<'a> {
    /// Checks region, range and length; that `data` is as long as it must be is left to the command.
    pub(super) fn parse(regions: &[Region], payload: &'a [u8], max_data_xfer: u32) -> Result<Self, Errno> {
        let mut fields = Fields::new(payload);
        let access = Self { offset: fields.u64()?, region: fields.u32()?, count: fields.u32()?, data: fields.rest() };
        let region = at(regions, access.region)?;
        let end = access.offset.checked_add(u64::from(access.count)).ok_or(Errno::INVAL)?;
        if !region.access || access.count == 0 || access.count > max_data_xfer || end > region.size {
            return Err(Errno::INVAL);
        }
        Ok(access)
    }

    /// The three fields again, as the reply begins.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.reserve(REGION_ACCESS_LEN);
        out.put_u64(self.offset);
        out.put_u32(self.region);
        out.put_u32(self.count);
    }
}
