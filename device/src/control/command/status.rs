//! `query-status`: what the medium holds.

use serde_json::{Value, json};

use vfio_bindings::bindings::vfio::VFIO_PCI_MSIX_IRQ_INDEX;

use super::{Arguments, CommandError, DeviceCommands};
use crate::store::{BLOCK_SIZE, Usage};

/// Flushes the window first, so that the figures are exact for all the guest has stored before; not with
/// `"flush": false`, which disturbs nothing and lags by what is dirty in the window.
pub(super) fn query_status(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let flush = arguments.optional_bool("flush")?.unwrap_or(true);
    arguments.finish()?;
    let occupancy = if flush { device.media.occupancy() } else { device.media.occupancy_now() };
    let resident = device.media.resident();
    let usage = occupancy.usage;
    Ok(json!({
        "client-connected": device.interrupts.has_client(),
        "window": device.window,
        "codec": device.codec.to_string(),
        "capacity": occupancy.capacity,
        "physical": usage.physical,
        "used": usage.used,
        "free": usage.free(),
        "low-watermark": occupancy.low_watermark,
        "high-watermark": occupancy.high_watermark,
        "blocked": occupancy.blocked,
        "crossings": { "low": occupancy.crossed.low, "high": occupancy.crossed.high },
        "interrupts": device.interrupts.signalled(VFIO_PCI_MSIX_IRQ_INDEX),
        "logical": logical(&usage),
        "data": usage.data,
        "metadata": usage.metadata,
        "data-ratio": ratio(logical(&usage), usage.data),
        "effective-ratio": ratio(logical(&usage), usage.used.saturating_add(usage.metadata)),
        "blocks": {
            "compressed": usage.compressed_blocks,
            "raw": usage.raw_blocks,
            "same-filled": usage.same_filled_blocks,
        },
        "recompressed-blocks": occupancy.recompressed.blocks,
        "recompressed-saved": occupancy.recompressed.saved,
        "poisoned": occupancy.poisoned,
        "overflows": occupancy.overflows,
        "resident": {
            "bytes": resident.bytes,
            "bound": resident.bound,
            "faults": resident.faults,
            "written-back": resident.written_back,
            "evicted": resident.evicted,
        },
    }))
}

/// Bytes the guest has stored, before compression.
fn logical(usage: &Usage) -> u64 {
    let blocks = usage.compressed_blocks.saturating_add(usage.raw_blocks).saturating_add(usage.same_filled_blocks);
    blocks.saturating_mul(BLOCK_SIZE as u64)
}

/// To two decimals; null when nothing is stored or it takes no bytes.
fn ratio(logical: u64, bytes: u64) -> Option<f64> {
    (logical > 0 && bytes > 0).then(|| (logical as f64 / bytes as f64 * 100.0).round() / 100.0)
}
