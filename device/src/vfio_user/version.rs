//! VERSION: the first message of a client.

use rustix::io::Errno;
use serde::Deserialize;

use super::message::{Fields, HEADER_LEN, MAX_DATA_XFER, MAX_MSG_FDS, PutFields};

/// The only major version there is.
const MAJOR: u16 = 0;
/// QEMU refuses a server whose minor version is higher than its own, and its own is 0.
const MINOR: u16 = 0;

/// What was agreed with a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    /// Bytes of data in one REGION_READ or REGION_WRITE.
    pub(super) max_data_xfer: u32,
    /// Whether the client takes descriptors, and so can map regions.
    pub(super) takes_fds: bool,
}

#[derive(Deserialize)]
struct VersionData {
    #[serde(default)]
    capabilities: Capabilities,
}

/// The client's capabilities that matter to the server. Absent ones have the protocol's default.
#[derive(Deserialize)]
#[serde(default)]
struct Capabilities {
    max_data_xfer_size: u64,
    max_msg_fds: u64,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { max_data_xfer_size: 1 << 20, max_msg_fds: 1 }
    }
}

/// Answers VERSION. The payload is major, minor, and JSON that a NUL ends (or nothing).
pub(super) fn negotiate(payload: &[u8], out: &mut Vec<u8>) -> Result<Agreed, Errno> {
    let mut fields = Fields::new(payload);
    if fields.u16()? != MAJOR {
        return Err(Errno::INVAL);
    }
    let _minor = fields.u16()?;
    let client = parse_capabilities(fields.rest())?;
    let agreed = Agreed {
        max_data_xfer: u32::try_from(client.max_data_xfer_size).unwrap_or(u32::MAX).min(MAX_DATA_XFER),
        takes_fds: client.max_msg_fds > 0,
    };

    out.put_u16(MAJOR);
    out.put_u16(MINOR);
    // QEMU receives the reply in the buffer of its request, so the reply must not be longer. What is left out has
    // the protocol's default. `write_multiple` is never offered: in QEMU it also turns on queued sends.
    let request_len = HEADER_LEN + payload.len();
    for data in [
        format!(r#"{{"capabilities":{{"max_msg_fds":{MAX_MSG_FDS},"max_data_xfer_size":{}}}}}"#, agreed.max_data_xfer),
        format!(r#"{{"capabilities":{{"max_data_xfer_size":{}}}}}"#, agreed.max_data_xfer),
    ] {
        if out.len() + data.len() < request_len {
            out.extend_from_slice(data.as_bytes());
            out.push(0);
            break;
        }
    }
    Ok(agreed)
}

fn parse_capabilities(data: &[u8]) -> Result<Capabilities, Errno> {
    let Some((terminator, json)) = data.split_last() else { return Ok(Capabilities::default()) };
    if *terminator != 0 || json.contains(&0) {
        return Err(Errno::INVAL);
    }
    serde_json::from_slice::<VersionData>(json).map(|data| data.capabilities).map_err(|_| Errno::INVAL)
}
