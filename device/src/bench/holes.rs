//! The holes of sparse files: ranges that were never written. They take no memory anywhere, and reading them as zeros
//! would promise the device a ratio it cannot have.

use std::fs::File;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::PAGE;

/// Offset and length of what has data in a range of a file, in whole pages counted from its start. All of it where the
/// file system keeps no account.
pub(super) fn data(file: &File, start: u64, len: u64) -> Vec<(u64, u64)> {
    let (end, page) = (start.saturating_add(len), PAGE as u64);
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut at = start;
    while at < end {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.max(at),
            // Nothing but a hole from here on.
            Err(Errno::NXIO) => break,
            Err(_) => return vec![(start, len)],
        };
        if data >= end {
            break;
        }
        let hole = seek(file, SeekFrom::Hole(data)).unwrap_or(end).clamp(data + 1, end);
        let from = start + (data - start) / page * page;
        let to = start.saturating_add((hole - start).next_multiple_of(page)).min(end);
        match found.last_mut() {
            Some((first, bytes)) if *first + *bytes >= from => *bytes = to - *first,
            _ => found.push((from, to - from)),
        }
        at = hole;
    }
    found
}
