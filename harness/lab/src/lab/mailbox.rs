//! The device's mailbox, through Linux's raw command path.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{LIMIT, Lab};

impl Lab {
    /// Sends a raw mailbox command, repeating it while the device is busy, and returns the return code.
    ///
    /// Linux does not wait for background commands on the raw path, and reports a timeout instead. This method returns 1 for
    /// it, "background operation started".
    pub fn mailbox(&self, opcode: u16, payload_hex: &str) -> Result<u16> {
        const STARTED: u16 = 1;
        const BUSY: u16 = 6;
        let opcode = format!("{opcode:#06x}");
        let words = ["cxl-cram-guest", "cxl-raw", "--allow-all", "--opcode", &opcode, "--payload-hex", payload_hex];
        let code = Cell::new(BUSY);
        self.wait("the device to be done with a background operation", |lab| {
            let ran = lab.guest.run(&words, LIMIT)?;
            if ran.exit.success() {
                let answer: Value = serde_json::from_str(&ran.stdout.text())?;
                code.set(u16::try_from(answer["return_code"].as_u64().context("no return code")?)?);
            } else {
                ensure!(ran.stderr.text().contains("timed out"), "mailbox command {opcode}: {}", ran.stderr.text());
                code.set(STARTED);
            }
            Ok(code.get() != BUSY)
        })?;
        Ok(code.get())
    }

    /// Sends Media Operation (4402h; CXL 3.1, 8.2.10.9.5.3) with its class and subclass, and the DPA and bytes of each range;
    /// the mailbox's 2 KiB hold 127 ranges. Returns the return code as [`Lab::mailbox`] does.
    pub fn media_operation(&self, [class, subclass]: [u8; 2], ranges: &[(u64, u64)]) -> Result<u16> {
        let mut payload = vec![class, subclass, 0, 0];
        payload.extend(u32::try_from(ranges.len())?.to_le_bytes());
        payload.extend(ranges.iter().flat_map(|(dpa, length)| [dpa.to_le_bytes(), length.to_le_bytes()].concat()));
        let payload: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        self.mailbox(0x4402, &payload)
    }
}
