//! Regions: a device's memory mapped into the guest's address space.
//!
//! Linux numbers memory devices, decoders and nodes as it finds them. Which of them are a device's is asked of where the
//! firmware put the device's window, never guessed from the number.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{LIMIT, Lab};
use crate::scenario::pick;

/// A region of one device.
#[derive(Clone, Debug)]
pub struct Region {
    /// `region0` and so on.
    pub name: String,
    /// The NUMA node of its memory.
    pub node: u32,
    /// Its first host physical address.
    pub base: u64,
    /// Its bytes.
    pub size: u64,
    /// Its device-dax device: `dax0.0` and so on.
    pub dax: String,
    /// What `cxl create-region` said of it.
    pub said: Value,
}

impl Region {
    /// How many of these pages lie in the region: physical addresses, as [`Memory::physical`] gives them.
    ///
    /// [`Memory::physical`]: crate::guest::memory::Memory::physical
    pub fn holds(&self, frames: &[Option<u64>]) -> usize {
        frames.iter().flatten().filter(|&&frame| frame.wrapping_sub(self.base) < self.size).count()
    }
}

impl Lab {
    /// Makes a region of the whole first device and waits until its memory has come up. Returns what `cxl` says of it.
    pub fn create_region(&self) -> Result<Value> {
        Ok(self.create_region_on(0)?.said)
    }

    /// Makes a region of the whole of a device and waits until its memory has come up.
    pub fn create_region_on(&self, device: usize) -> Result<Region> {
        self.create_region_of(device, "")
    }

    /// Makes a region of a part of a device: `size` as `cxl create-region` takes it, for example `-s 256M`.
    pub fn create_region_of(&self, device: usize, size: &str) -> Result<Region> {
        let (memdev, window) = (self.memdev(device)?, self.window(device)?);
        let said = self.cxl(&format!("create-region -d {window} -m {memdev} -t ram {size}"))?;
        let name = said["region"].as_str().context("the region has no name")?.to_owned();
        let number = |key: &str| said[key].as_u64().with_context(|| format!("the region has no {key}"));
        let (base, size) = (number("resource")?, number("size")?);
        let dax = format!("{}.0", name.replace("region", "dax"));
        // dax and kmem follow by themselves, later. The region's last block of memory is the last thing they make.
        let target = format!("/sys/bus/dax/devices/{dax}/target_node");
        self.guest.wait_path(&target, LIMIT)?;
        let node = self.guest.read_text(&target)?.trim().parse().context("the region's target node is no number")?;
        let block =
            u64::from_str_radix(self.guest.read_text("/sys/devices/system/memory/block_size_bytes")?.trim(), 16)
                .context("the size of a memory block is no number")?;
        let last = (base + size - 1).checked_div(block).context("memory blocks have no size")?;
        self.guest.wait_path(&format!("/sys/devices/system/node/node{node}/memory{last}"), LIMIT)?;
        Ok(Region { name, node, base, size, dax, said })
    }

    /// Destroys the first region, whose memory is offline.
    pub fn destroy_region(&self) -> Result<()> {
        self.destroy("region0")
    }

    /// Destroys a region whose memory is offline.
    pub fn destroy(&self, region: &str) -> Result<()> {
        self.sh(&format!("cxl disable-region {region} && cxl destroy-region {region}")).map(drop)
    }

    /// Has the kernel sanitize a device of which no region is made, and waits until one can be made again.
    pub fn sanitize(&self, device: usize) -> Result<()> {
        self.guest.write_file(&format!("/sys/bus/cxl/devices/{}/security/sanitize", self.memdev(device)?), "1")?;
        // The kernel clears its own note of the operation a little after the device is done, and commits no decoder before.
        let region = self.wait_for("decoders to be committed again", |lab| Ok(lab.create_region_on(device).ok()))?;
        self.destroy(&region.name)
    }

    /// What a device's decoders are programmed to, and how many of them the kernel holds committed.
    pub fn decoders(&self, device: usize) -> Result<Value> {
        const FIELDS: &[&str] = &["decoder", "region", "resource", "size", "dpa_resource", "dpa_size"];
        let memdev = self.memdev(device)?;
        let endpoint = self.cxl(&format!("list -E -m {memdev}"))?;
        let decoders = self.cxl(&format!("list -D -d endpoint -m {memdev}"))?;
        Ok(json!({ "committed": endpoint[0]["decoders_committed"], "decoders": pick(&decoders, FIELDS) }))
    }

    /// A device's PCI function as the guest names it: the one whose BAR2 is where the firmware put the device's window.
    pub fn function(&self, device: usize) -> Result<String> {
        // The third line of `resource` is BAR2: start, end, flags.
        let line =
            format!("grep -n '^{:#018x} ' /sys/bus/pci/devices/*/resource | grep ':3:'", self.bars[device].address);
        let found = self.sh(&line)?;
        let function = found.split('/').nth(5).with_context(|| format!("no function has device {device}'s BAR2"))?;
        Ok(function.to_owned())
    }

    /// The memory device that the guest has made of a device: `mem0` and so on.
    pub fn memdev(&self, device: usize) -> Result<String> {
        let function = self.function(device)?;
        let names = self.guest.list_dir(&format!("/sys/bus/pci/devices/{function}"))?;
        let memdev = |name: &String| name.strip_prefix("mem").is_some_and(|number| number.parse::<u32>().is_ok());
        names.into_iter().find(memdev).with_context(|| format!("{function} has no memory device: see its driver"))
    }

    /// The root decoder of a device's window: `decoder0.0` and so on.
    pub fn window(&self, device: usize) -> Result<String> {
        let line = format!("grep -lx {:#x} /sys/bus/cxl/devices/decoder0.*/start", self.bars[device].address);
        let found = self.sh(&line)?;
        let decoder =
            found.split('/').nth(5).with_context(|| format!("no root decoder starts at device {device}'s BAR2"))?;
        Ok(decoder.to_owned())
    }

    /// Has the device-dax device of a region taken over by another driver: `kmem`, which makes it a node's memory, or
    /// `device_dax`, which makes it `/dev/daxN.0`. Its memory must be offline.
    pub fn give_dax(&self, dax: &str, driver: &str) -> Result<()> {
        // As `daxctl reconfigure-device` does it, which itself insists on drivers that are modules.
        self.sh(&format!(
            "cd /sys/bus/dax/drivers && echo {dax} > ../devices/{dax}/driver/unbind && \
             echo {dax} > {driver}/new_id && echo {dax} > {driver}/remove_id && test -e {driver}/{dax}"
        ))
        .map(drop)
    }
}
