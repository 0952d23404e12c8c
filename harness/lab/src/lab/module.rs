//! Kernel modules that the guest does not load at boot.

use cxl_cram_wire::protocol::ON_DEMAND_DIR;

use super::Lab;
use crate::guest::client::GuestError;

impl Lab {
    /// Loads a module on demand, such as `cxl_cram`, with parameters as for `insmod`, separated by spaces.
    ///
    /// # Errors
    /// The guest does not have the module, or the kernel refuses it.
    pub fn load_module(&self, name: &str, parameters: &str) -> Result<(), GuestError> {
        self.guest.load_module(&format!("{ON_DEMAND_DIR}/{name}.ko"), parameters)
    }

    /// Unloads a module.
    ///
    /// # Errors
    /// The module is in use.
    pub fn unload_module(&self, name: &str) -> Result<(), GuestError> {
        self.guest.unload_module(name)
    }
}
