//! Regions: the device's memory mapped into the guest's address space.

use anyhow::Result;
use serde_json::Value;

use super::{LIMIT, Lab};

impl Lab {
    /// Makes a region of the whole device and waits until its memory has come up. Returns what `cxl` says of it.
    pub fn create_region(&self) -> Result<Value> {
        let region = self.cxl("create-region -d decoder0.0 -m mem0 -t ram")?;
        // dax and kmem follow by themselves, later.
        self.guest.wait_path("/sys/devices/system/node/node1/meminfo", LIMIT)?;
        Ok(region)
    }

    /// Destroys the region whose memory is offline.
    pub fn destroy_region(&self) -> Result<()> {
        self.sh("cxl disable-region region0 && cxl destroy-region region0").map(drop)
    }
}
