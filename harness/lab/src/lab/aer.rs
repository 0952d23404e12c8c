//! PCIe errors through QEMU's monitor: a device cannot send error messages over vfio-user, but its root port can report.

use anyhow::{Result, ensure};

use super::Lab;
use crate::machine::topology;

impl Lab {
    /// Makes a device's root port report an uncorrectable error: a bit of the AER uncorrectable error status register.
    /// Linux then asks the driver of the device below for its errors.
    pub fn root_port_error(&self, device: usize, status: u32) -> Result<()> {
        let port = topology::root_port(device);
        let answer = self.monitor(&format!("pcie_aer_inject_error {port} {status:#x}"))?;
        // The answer is what QEMU did, or why it did not.
        ensure!(answer.starts_with("OK"), "QEMU cannot inject the error: {}", answer.trim());
        Ok(())
    }
}
