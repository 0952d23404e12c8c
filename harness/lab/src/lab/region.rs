//! Regions: a device's memory mapped into the guest's address space.
//!
//! Linux numbers memory devices, decoders and nodes as it finds them. The lab identifies a device's by the address of its
//! window, never by number.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{LIMIT, Lab};
use crate::record::facts::pick;

/// A region of one device.
#[derive(Clone, Debug)]
pub struct Region {
    /// `region0` and so on.
    pub name: String,
    /// The NUMA node of its memory.
    pub node: u32,
    /// Its first host physical address.
    pub base: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its device-dax device: `dax0.0` and so on.
    pub dax: String,
    /// The output of `cxl create-region`.
    pub listing: Value,
}

impl Region {
    /// How many of these pages lie in the region, by physical address as [`Memory::physical`] returns it.
    ///
    /// [`Memory::physical`]: crate::guest::memory::Memory::physical
    pub fn holds(&self, frames: &[Option<u64>]) -> usize {
        frames.iter().flatten().filter(|&&frame| frame.wrapping_sub(self.base) < self.size).count()
    }
}

impl Lab {
    /// Creates a region of the whole first device and waits until its memory is there. Returns the output of `cxl`.
    pub fn create_region(&self) -> Result<Value> {
        Ok(self.create_region_on(0)?.listing)
    }

    /// Creates a region of a whole device and waits until its memory is there.
    pub fn create_region_on(&self, device: usize) -> Result<Region> {
        self.create_region_of(device, "")
    }

    /// Creates a region of part of a device, with `size` as for `cxl create-region`, for example `-s 256M`.
    pub fn create_region_of(&self, device: usize, size: &str) -> Result<Region> {
        let (memdev, window) = (self.memdev(device)?, self.window(device)?);
        self.region(self.cxl(&format!("create-region -d {window} -m {memdev} -t ram {size}"))?)
    }

    /// Waits for the region that Linux makes by itself of a device's committed decoders, and until its memory is there.
    pub fn found_region(&self, device: usize) -> Result<Region> {
        let window = self.window(device)?;
        let found = |lab: &Lab| Ok(lab.cxl(&format!("list -R -d {window}"))?.get(0).cloned());
        self.region(self.wait_for("Linux to make a region of the committed decoders", found)?)
    }

    /// The region of this listing, once its memory is there.
    fn region(&self, listing: Value) -> Result<Region> {
        let name = listing["region"].as_str().context("the region has no name")?.to_owned();
        let number = |key: &str| listing[key].as_u64().with_context(|| format!("the region has no {key}"));
        let (base, size) = (number("resource")?, number("size")?);
        let dax = format!("{}.0", name.replace("region", "dax"));
        // dax and kmem bind later, on their own. The region's last memory block is the last thing they create.
        let target = format!("/sys/bus/dax/devices/{dax}/target_node");
        self.guest.wait_path(&target, LIMIT)?;
        let node = self.guest.read_text(&target)?.trim().parse().context("the region's target node is not a number")?;
        let block =
            u64::from_str_radix(self.guest.read_text("/sys/devices/system/memory/block_size_bytes")?.trim(), 16)
                .context("the size of a memory block is not a number")?;
        let last = (base + size - 1).checked_div(block).context("memory blocks have no size")?;
        self.guest.wait_path(&format!("/sys/devices/system/node/node{node}/memory{last}"), LIMIT)?;
        Ok(Region { name, node, base, size, dax, listing })
    }

    /// Destroys the first region, whose memory must be offline.
    pub fn destroy_region(&self) -> Result<()> {
        self.destroy("region0")
    }

    /// Destroys a region, whose memory must be offline.
    pub fn destroy(&self, region: &str) -> Result<()> {
        self.sh(&format!("cxl disable-region {region} && cxl destroy-region {region}")).map(drop)
    }

    /// Makes the kernel sanitize a device without regions, and waits until a region can be created again.
    pub fn sanitize(&self, device: usize) -> Result<()> {
        self.guest.write_file(&format!("/sys/bus/cxl/devices/{}/security/sanitize", self.memdev(device)?), "1")?;
        // The kernel notices a little after the device is done, and commits no decoder before that.
        let region = self.wait_for("decoders to be committed again", |lab| Ok(lab.create_region_on(device).ok()))?;
        self.destroy(&region.name)
    }

    /// The programming of a device's decoders, and how many of them the kernel considers committed.
    pub fn decoders(&self, device: usize) -> Result<Value> {
        const FIELDS: &[&str] = &["decoder", "region", "resource", "size", "dpa_resource", "dpa_size"];
        let memdev = self.memdev(device)?;
        let endpoint = self.cxl(&format!("list -E -m {memdev}"))?;
        let decoders = self.cxl(&format!("list -D -d endpoint -m {memdev}"))?;
        Ok(json!({ "committed": endpoint[0]["decoders_committed"], "decoders": pick(&decoders, FIELDS) }))
    }

    /// The control register of a device's first decoder (CXL 3.1, 8.2.4.20.7), as the device has it: from Get Log (0401h) of the
    /// component state dump, in which the HDM decoder structure follows a header of 40h bytes.
    pub fn decoder_control(&self, device: usize) -> Result<u32> {
        const DUMP: &str = "b3fab4cf01b64332943e5e9962f23567";
        const CONTROL: usize = 0x40 + 0x20;
        let memdev = self.memdev(device)?;
        let log = self.json(&format!(
            "cxl-cram-guest cxl-raw --memdev {memdev} --allow-all --opcode 0x0401 --payload-hex {DUMP}00000000d0000000"
        ))?;
        ensure!(log["return_code"] == 0, "the component state dump cannot be read: {log}");
        let hex =
            log["payload_hex"].as_str().and_then(|hex| hex.get(CONTROL * 2..CONTROL * 2 + 8)).context("no dump")?;
        Ok(u32::from_str_radix(hex, 16)?.swap_bytes())
    }

    /// The guest's name for a device's PCI function: the one whose BAR2 is at the device's window.
    pub fn function(&self, device: usize) -> Result<String> {
        // The third line of `resource` is BAR2: start, end, flags.
        let line =
            format!("grep -n '^{:#018x} ' /sys/bus/pci/devices/*/resource | grep ':3:'", self.bars[device].address);
        let found = self.sh(&line)?;
        let function = found.split('/').nth(5).with_context(|| format!("no function has device {device}'s BAR2"))?;
        Ok(function.to_owned())
    }

    /// The guest's name for a device's memory device: `mem0` and so on.
    pub fn memdev(&self, device: usize) -> Result<String> {
        let function = self.function(device)?;
        let names = self.guest.list_dir(&format!("/sys/bus/pci/devices/{function}"))?;
        let memdev = |name: &String| name.strip_prefix("mem").is_some_and(|number| number.parse::<u32>().is_ok());
        names.into_iter().find(memdev).with_context(|| format!("{function} has no memory device; is its driver bound?"))
    }

    /// The root decoder of a device's window: `decoder0.0` and so on.
    pub fn window(&self, device: usize) -> Result<String> {
        let line = format!("grep -lx {:#x} /sys/bus/cxl/devices/decoder0.*/start", self.bars[device].address);
        let found = self.sh(&line)?;
        let decoder =
            found.split('/').nth(5).with_context(|| format!("no root decoder starts at device {device}'s BAR2"))?;
        Ok(decoder.to_owned())
    }

    /// Rebinds a region's device-dax device, whose memory must be offline, to another driver: `kmem`, which makes it a node's
    /// memory, or `device_dax`, which makes it `/dev/daxN.0`.
    pub fn give_dax(&self, dax: &str, driver: &str) -> Result<()> {
        // `daxctl reconfigure-device` leaves the name with the driver, which would then take the next region's device too.
        self.sh(&format!(
            "cd /sys/bus/dax/drivers && echo {dax} > ../devices/{dax}/driver/unbind && \
             echo {dax} > {driver}/new_id && echo {dax} > {driver}/remove_id && test -e {driver}/{dax}"
        ))
        .map(drop)
    }
}
