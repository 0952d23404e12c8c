//! `cxl-raw`: any mailbox command, through the kernel's raw path.
//!
//! `CXL_MEM_SEND_COMMAND` with `CXL_MEM_COMMAND_ID_RAW`, include/uapi/linux/cxl_mem.h. Needs
//! `CONFIG_CXL_MEM_RAW_COMMANDS`. The kernel warns once (`raw command path used`), as a
//! sign of debugging.

use std::fs::{self, OpenOptions};
use std::io;

use cxl_cram_wire::protocol::{from_hex, to_hex};
use rustix::ioctl::{Updater, ioctl, opcode};
use serde::{Deserialize, Serialize};

/// `CXL_MEM_COMMAND_ID_RAW`.
const ID_RAW: u32 = 2;
/// `CXL_MEM_SEND_COMMAND`.
const SEND_COMMAND: rustix::ioctl::Opcode = opcode::read_write::<SendCommand>(0xCE, 2);
/// The largest payload in bytes: the largest mailbox that the specification allows (CXL 3.1 8.2.8.4.3).
const MAX_PAYLOAD: usize = 1 << 20;
/// Lets the raw path send opcodes that the kernel reserves for itself.
const ALLOW_ALL: &str = "/sys/kernel/debug/cxl/mbox/raw_allow_all";

/// One direction of `struct cxl_send_command`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Payload {
    size: u32,
    reserved: u32,
    address: u64,
}

/// `struct cxl_send_command`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SendCommand {
    id: u32,
    flags: u32,
    opcode: u16,
    reserved: u16,
    return_code: u32,
    input: Payload,
    output: Payload,
}

/// The device's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The mailbox's return code; 0 is success (CXL 3.1 table 8-34).
    pub return_code: u32,
    /// The output payload, in hexadecimal.
    pub payload_hex: String,
}

/// Sends a command and returns the device's answer, whatever its return code.
///
/// # Errors
/// There is no such device, the payload is invalid, or the kernel refuses the command; nothing was sent.
pub fn send(memdev: &str, opcode: u16, payload_hex: &str, output_bytes: usize, allow_all: bool) -> io::Result<Answer> {
    let mut input = from_hex(payload_hex).map_err(io::Error::other)?;
    if input.len() > MAX_PAYLOAD || output_bytes > MAX_PAYLOAD {
        return Err(io::Error::other(format!("keep payloads within {MAX_PAYLOAD} bytes")));
    }
    if memdev.contains('/') {
        return Err(io::Error::other("not a memory device; name one such as mem0"));
    }
    if allow_all {
        fs::write(ALLOW_ALL, "Y")?;
    }
    let device = OpenOptions::new().read(true).write(true).open(format!("/dev/cxl/{memdev}"))?;
    let mut output = vec![0_u8; output_bytes];
    let mut command = SendCommand {
        id: ID_RAW,
        opcode,
        input: Payload { size: input.len() as u32, address: input.as_mut_ptr() as u64, ..Payload::default() },
        output: Payload { size: output.len() as u32, address: output.as_mut_ptr() as u64, ..Payload::default() },
        ..SendCommand::default()
    };
    // SAFETY: the structure is the kernel's; both payloads outlive the call and have the given lengths.
    unsafe { ioctl(&device, Updater::<SEND_COMMAND, _>::new(&mut command))? };
    output.truncate(command.output.size as usize);
    Ok(Answer { return_code: command.return_code, payload_hex: to_hex(&output) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_the_kernels() {
        assert_eq!(size_of::<SendCommand>(), 48);
        assert_eq!(std::mem::offset_of!(SendCommand, return_code), 12);
        assert_eq!(std::mem::offset_of!(SendCommand, output), 32);
    }

    #[test]
    fn bad_arguments_are_refused_before_anything_is_sent() {
        for (memdev, payload, output) in [("../null", "", 0), ("mem0", "xyz", 0), ("mem0", "", MAX_PAYLOAD + 1)] {
            let error = send(memdev, 0, payload, output, false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Other, "{error}");
        }
    }
}
