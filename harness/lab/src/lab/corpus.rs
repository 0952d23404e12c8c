//! The corpus: real data, half machine code, half source text.

use std::time::Duration;

use cxl_cram_wire::pattern::Pattern;

use crate::guest::client::GuestError;
use crate::guest::memory::{Mapping, Memory};

/// The disk it is on: see [`MachineShape::corpus`](super::MachineShape).
const DISK: &str = "/dev/vda";
/// Where the source text begins.
const TEXT: u64 = 128 << 20;
/// Time limit for mapping or filling one half.
const LIMIT: Duration = Duration::from_secs(60);

/// Fills two mappings of `bytes` on a node, one with the beginning of each half. Returns the patterns to verify them with.
pub fn corpus_halves(memory: &mut Memory, node: u32, bytes: u64) -> Result<[(Pattern, Mapping); 2], GuestError> {
    let mut half = |offset| {
        let data = Pattern::File { path: DISK.to_owned(), offset };
        let map = memory.map_on(node, bytes, LIMIT)?;
        memory.fill(map.all(), &data, LIMIT)?;
        Ok((data, map))
    };
    Ok([half(0)?, half(TEXT)?])
}
