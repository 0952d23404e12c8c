//! The source of a pattern's pages: generated, or read from a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use cxl_cram_wire::pattern::{PAGE, Pattern};
use rustix::fs::OFlags;

use super::region::Region;

/// Pages read at once.
const BATCH: usize = 256;

/// Provides a pattern's pages, one after the other.
pub(super) enum Source {
    Made(Pattern, Box<[u8; PAGE]>),
    Read(Box<FileSource>),
}

/// A file's pages, through a bounce buffer on node 0. Read with `O_DIRECT` if the file system supports it, so that the file
/// leaves nothing in the page cache on any node.
pub(super) struct FileSource {
    file: File,
    offset: u64,
    pages: u64,
    bounce: Region,
    /// The first of the file's pages in the buffer, and how many there are.
    held: (u64, usize),
}

impl Source {
    pub(super) fn new(pattern: &Pattern) -> io::Result<Self> {
        let Pattern::File { path, offset } = pattern else {
            return Ok(Self::Made(pattern.clone(), Box::new([0; PAGE])));
        };
        let open = |flags: OFlags| OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
        let mut file = open(OFlags::DIRECT).or_else(|_| open(OFlags::empty()))?;
        let size = file.seek(SeekFrom::End(0))?;
        let pages = size.saturating_sub(*offset).div_ceil(PAGE as u64);
        if !offset.is_multiple_of(PAGE as u64) || pages == 0 {
            return Err(io::Error::other(format!("give an offset of whole pages within the {size} bytes of {path}")));
        }
        let bounce = Region::on_node(BATCH, 0)?;
        Ok(Self::Read(Box::new(FileSource { file, offset: *offset, pages, bounce, held: (0, 0) })))
    }

    /// The content of page `number`.
    pub(super) fn page(&mut self, number: u64) -> io::Result<&[u8; PAGE]> {
        match self {
            Self::Made(pattern, page) => {
                pattern.make(number, page);
                Ok(page)
            }
            Self::Read(file) => file.page(number % file.pages),
        }
    }
}

impl FileSource {
    fn page(&mut self, wanted: u64) -> io::Result<&[u8; PAGE]> {
        let (first, count) = self.held;
        let index = match wanted.checked_sub(first) {
            Some(index) if index < count as u64 => index as usize,
            _ => {
                let count = (self.pages - wanted).min(BATCH as u64) as usize;
                self.held = (0, 0);
                self.read(wanted, count)?;
                self.held = (wanted, count);
                0
            }
        };
        Ok(self.bounce.page(index))
    }

    /// Fills the buffer's first `count` pages from the file's page `first` on.
    fn read(&mut self, first: u64, count: usize) -> io::Result<()> {
        let mut at = self.offset + first * PAGE as u64;
        for index in 0..count {
            self.bounce.page(index).fill(0);
        }
        let buffer = self.bounce.bytes(count);
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], at) {
                // Only the file's last page may be short.
                Ok(0) => return Ok(()),
                Ok(read) => (done, at) = (done + read, at + read as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
