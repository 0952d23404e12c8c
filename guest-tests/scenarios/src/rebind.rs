//! Drivers are unbound from the device and bound again: a region does not outlive its memory device, but the contents do.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "rebind",
    story: "cxl_mem, then cxl_pci unbound and bound again: the region is gone, its decoder free, the contents still there",
    needs: &[Need::Config("DEV_DAX_KMEM")],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 71, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    for driver in ["cxl_mem", "cxl_pci"] {
        lab.step(&format!("{driver}: a region with data"));
        let region = lab.create_region_on(0)?;
        lab.online_node(region.node)?;
        let mut memory = lab.guest.memory()?;
        let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
        memory.fill(map.all(), &DATA, LIMIT)?;
        let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
        lab.fact(&format!("{driver}.pages wrong"), verdict.pages_wrong);
        drop(memory);
        lab.offline_node(region.node)?;
        let used = lab.device().status()?.used;

        lab.step(&format!("{driver}: unbound"));
        let (place, device) = match driver {
            "cxl_mem" => ("/sys/bus/cxl/drivers/cxl_mem", lab.memdev(0)?),
            _ => ("/sys/bus/pci/drivers/cxl_pci", lab.function(0)?),
        };
        lab.sh(&format!("echo {device} > {place}/unbind"))?;
        lab.fact(&format!("{driver}.unbound.endpoints"), lab.cxl("list -E")?);
        let regions = lab.cxl("list -R -i")?;
        lab.fact(&format!("{driver}.unbound.regions"), pick(&regions, &["region", "decode_state", "state"]));

        lab.step(&format!("{driver}: bound again"));
        lab.sh(&format!("echo {device} > {place}/bind"))?;
        lab.fact(&format!("{driver}.bound.decoders"), lab.decoders(0)?);
        lab.fact(&format!("{driver}.bound.contents kept"), lab.device().status()?.used == used);
        lab.sh(&format!("echo {} > /sys/bus/cxl/devices/{}/delete_region", region.name, lab.window(0)?))?;
    }
    Ok(())
}
