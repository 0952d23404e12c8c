//! A private node from its claim to its end, and every request that is refused on the way.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "private_lifecycle",
    story: "a node is claimed, gets a second range, is held against others, given up, claimed anew, and ordinary again",
    needs: &[Need::PrivateNodes, Need::Config("DEV_DAX_KMEM")],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 51, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let private = lab.private_nodes()?;
    let regions = [lab.create_region_of(0, "-s 256M")?, lab.create_region_of(0, "-s 256M")?];
    let node = regions[0].node;
    lab.fact("both regions are of one node", regions[1].node == node);
    let claim = Claim { node, owner: 0, capabilities: &[Capability::Reclaim] };

    lab.step("a node with ordinary memory cannot be claimed");
    let second = lab.take_range(&regions[1])?;
    lab.online_node(node)?;
    states(lab, "ordinary", node)?;
    lab.fact("ordinary.claim of the node", errno(private.add(lab, &claim, &second))?);
    lab.fact("ordinary.claim of node 0", errno(private.add(lab, &Claim { node: 0, ..claim }, &second))?);
    lab.offline_node(node)?;
    lab.fact("offline.claim of the node", errno(private.add(lab, &claim, &second))?);
    let first = lab.take_range(&regions[0])?;

    lab.step("invalid claims");
    for capabilities in [
        &[Capability::Demotion][..],
        &[Capability::Oom],
        &[Capability::ProtectWrite, Capability::Mempolicy],
        &[Capability::ProtectWrite, Capability::LongtermPin],
    ] {
        let refused = errno(private.add(lab, &Claim { capabilities, ..claim }, &first))?;
        lab.fact(&format!("claim with {capabilities:?}"), refused);
    }
    lab.fact("claim of a node that cannot be", errno(private.add(lab, &Claim { node: 1023, ..claim }, &first))?);
    let odd = first.start..first.end - MIB;
    lab.fact("claim with a part of a memory block", errno(private.add(lab, &claim, &odd))?);
    states(lab, "unclaimed", node)?;

    lab.step("a claim");
    lab.fact("claim", errno(private.add(lab, &claim, &first))?);
    states(lab, "claimed", node)?;
    lab.fact("the same range again", errno(private.add(lab, &claim, &first))?);
    lab.fact("a range of another owner", errno(private.add(lab, &Claim { owner: 1, ..claim }, &second))?);
    lab.fact("a range with no capabilities", errno(private.add(lab, &Claim { capabilities: &[], ..claim }, &second))?);
    lab.fact("a range of ordinary memory", errno(to_kmem(lab, &regions[1]))?);
    lab.fact("a second range", errno(private.add(lab, &claim, &second))?);
    states(lab, "two ranges", node)?;

    lab.step("its memory blocks are movable only");
    let block = lab.sh(&format!("ls -d /sys/devices/system/node/node{node}/memory* | sort | head -n 1"))?;
    let block = block.trim();
    let state = |lab: &Lab, to: &str| errno(lab.guest.write_file(&format!("{block}/state"), to));
    for to in ["offline", "online_kernel", "online"] {
        lab.fact(&format!("block.{to}"), state(lab, to)?);
    }
    lab.fact("block.valid_zones", lab.guest.read_text(&format!("{block}/valid_zones"))?);

    lab.step("its owner's data");
    let mut memory = lab.guest.memory()?;
    let map = memory.map_shared(&private.pages(node), 32 * MIB)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact("pages wrong", verdict.pages_wrong);
    lab.fact("pages by node", memory.nodes(map.all())?.nodes);
    let used = lab.device().status()?.used;
    lab.fact("the device holds them, compressed", (32 * MIB / 4..32 * MIB / 2).contains(&used));

    lab.step("while it is in use");
    lab.fact("used.unregister", errno(private.unregister(lab, node))?);
    let frames: Vec<u64> = memory.physical(&map, 0, 1)?.into_iter().flatten().collect();
    let in_first = frames.first().is_some_and(|frame| first.contains(frame));
    let (busy, idle) = if in_first { (&first, &second) } else { (&second, &first) };
    lab.fact("used.remove the range with its data", errno(private.remove(lab, node, busy))?);
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact("used.pages wrong", verdict.pages_wrong);
    drop(memory);

    lab.step("given up");
    lab.fact("remove memory of node 0", errno(private.remove(lab, node, &(128 * MIB..256 * MIB)))?);
    let beyond = 2 * second.end - second.start..3 * second.end - 2 * second.start;
    lab.fact("remove where there is no memory", errno(private.remove(lab, node, &beyond))?);
    let holed = first.start..beyond.end;
    lab.fact("remove a range with a hole", errno(private.remove(lab, node, &holed))?);
    lab.fact("remove a part of a memory block", errno(private.remove(lab, node, &(idle.start..idle.end - MIB)))?);
    states(lab, "refused", node)?;
    lab.fact("remove one range", errno(private.remove(lab, node, idle))?);
    states(lab, "one range", node)?;
    lab.fact("one range.unregister", errno(private.unregister(lab, node))?);
    lab.fact("remove the other", errno(private.remove(lab, node, busy))?);
    states(lab, "no range", node)?;
    lab.fact("no range.unregister", errno(private.unregister(lab, node))?);
    lab.fact("unregister again", errno(private.unregister(lab, node))?);

    lab.step("another owner");
    let other = Claim { node, owner: 1, capabilities: &[] };
    lab.fact("claim of another", errno(private.add(lab, &other, &first))?);
    states(lab, "claimed by another", node)?;
    lab.fact("another.remove", errno(private.remove(lab, node, &first))?);
    lab.fact("another.unregister", errno(private.unregister(lab, node))?);

    lab.step("ordinary memory again");
    for region in &regions {
        lab.fact(&format!("ordinary again.{}", region.name), errno(to_kmem(lab, region))?);
    }
    lab.online_node(node)?;
    states(lab, "ordinary again", node)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(node, 32 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact("ordinary again.pages wrong", verdict.pages_wrong);
    Ok(())
}

/// Gives a region's memory to kmem, which makes it the node's ordinary memory.
fn to_kmem(lab: &Lab, region: &Region) -> std::result::Result<(), GuestError> {
    lab.guest.write_file("/sys/bus/dax/drivers/kmem/bind", region.dax.as_str())
}

/// Records the node states from sysfs, and how much memory this node has.
fn states(lab: &mut Lab, when: &str, node: u32) -> Result<()> {
    let list = |lab: &Lab, file: &str| lab.guest.read_text(file);
    let found = json!({
        "has_memory": list(lab, "/sys/devices/system/node/has_memory")?,
        "private": list(lab, lab.private_nodes()?.list())?,
        "bytes": lab.node_bytes(node, "MemTotal")?,
    });
    lab.fact(&format!("{when}.nodes"), found);
    Ok(())
}
