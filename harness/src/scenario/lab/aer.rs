//! PCIe errors, by QEMU's monitor: what a device cannot send over vfio-user, its root port can say.

use anyhow::{Result, ensure};

use super::Lab;
use crate::machine::topology;

impl Lab {
    /// Has a device's root port report an uncorrectable error: a bit of the AER uncorrectable error status register.
    /// Linux then asks the driver of the device below for its errors.
    pub fn root_port_error(&self, device: usize, status: u32) -> Result<()> {
        let port = topology::root_port(device);
        let said = self.monitor(&format!("pcie_aer_inject_error {port} {status:#x}"))?;
        // It answers with what it did, or why it did not.
        ensure!(said.starts_with("OK"), "QEMU injects no error: {}", said.trim());
        Ok(())
    }
}
