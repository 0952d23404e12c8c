//! Kernel modules that are in the guest and not loaded at boot.

use cxl_cram_guest::agent::ON_DEMAND_DIR;

use super::Lab;
use crate::guest::client::GuestError;

impl Lab {
    /// Loads one of the modules for later: `cxl_cram`. Its parameters are those of `insmod`, separated by spaces.
    ///
    /// # Errors
    /// It is not there, or the kernel does not take it.
    pub fn load_module(&self, name: &str, parameters: &str) -> Result<(), GuestError> {
        self.guest.load_module(&format!("{ON_DEMAND_DIR}/{name}.ko"), parameters)
    }

    /// Unloads a module.
    ///
    /// # Errors
    /// The kernel does not let it go: it is in use.
    pub fn unload_module(&self, name: &str) -> Result<(), GuestError> {
        self.guest.unload_module(name)
    }
}
