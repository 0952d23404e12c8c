//! Direct I/O (`O_DIRECT`): the disk reads and writes the pages themselves, which the kernel pins meanwhile.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use cxl_cram_wire::pattern::{PAGE, Verdict};
use rustix::fs::OFlags;

use super::region::Region;
use super::source::Source;

fn open(path: &str) -> io::Result<File> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(direct).open(path)
}

/// Writes a pattern to a file, and makes the disk read it into pages of a region.
///
/// # Errors
/// The file is too short or has no direct I/O, or the disk fails.
pub(super) fn read(region: &mut Region, first: usize, pages: usize, path: &str, source: &mut Source) -> io::Result<()> {
    let (file, mut bounce) = (open(path)?, Region::new(1)?);
    for page in first..first + pages {
        bounce.page(0).copy_from_slice(source.page(page as u64)?);
        file.write_all_at(bounce.page(0), (page * PAGE) as u64)?;
    }
    (first..first + pages).try_for_each(|page| file.read_exact_at(region.page(page), (page * PAGE) as u64))
}

/// Makes the disk write pages of a region to a file, and compares the file with the expected content.
///
/// # Errors
/// The file is too short or has no direct I/O, or the disk fails.
pub(super) fn write(
    region: &mut Region,
    first: usize,
    pages: usize,
    path: &str,
    source: &mut Source,
) -> io::Result<Verdict> {
    let (file, mut bounce, mut verdict) = (open(path)?, Region::new(1)?, Verdict::default());
    for page in first..first + pages {
        file.write_all_at(region.page(page), (page * PAGE) as u64)?;
        file.read_exact_at(bounce.page(0), (page * PAGE) as u64)?;
        verdict.compare(page as u64, source.page(page as u64)?, bounce.page(0));
    }
    Ok(verdict)
}
