//! A cpuset with nothing but movable memory makes the page allocator ask every request whether it has a zone in its cpuset.
//! Private nodes are in no cpuset, so their requests must not be asked.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "private_cpusets",
    story: "beside a cpuset of movable memory only, a private node that is full is still reclaimed, and kills whom it is bound to",
    needs: &[
        Need::PrivateNodes,
        Need::Config("CPUSETS"),
        Need::Config("DEV_DAX_KMEM"),
        Need::Config("MEMCG"),
        Need::Path("/sys/block/zram0"),
    ],
    devices: &[
        DeviceShape::USUAL,
        DeviceShape { capacity: 256 << 20, more: &["--serial", "0x2222"], ..DeviceShape::USUAL },
    ],
    machine: MachineShape { expected: &["invoked oom-killer"], ..MachineShape::USUAL },
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

const PAGE: u64 = 4096;
/// More than the node has.
const BYTES: u64 = 272 << 20;
const NODE: &str = "-s 256M";
const LIMIT: Duration = Duration::from_secs(60);
const DATA: Pattern = Pattern::Compressible { seed: 73, ratio: 8.0 };
const OTHER: &str = "/sys/fs/cgroup/movable";

fn run(lab: &mut Lab) -> Result<()> {
    let private = lab.private_nodes()?;
    let region = lab.create_region_of(0, NODE)?;
    let range = lab.take_range(&region)?;
    let movable = lab.create_region_of(1, NODE)?.node;
    lab.online_node(movable)?;
    let capabilities = &[Capability::Mempolicy, Capability::Reclaim, Capability::Oom];
    private.add(lab, &Claim { node: region.node, owner: 0, capabilities }, &range)?;

    lab.sh(&format!("mkdir {OTHER} && echo {movable} > {OTHER}/cpuset.mems"))?;

    lab.step("more than the node has, with swap");
    lab.swap_on_zram(256)?;
    let overflow = overflow(lab, region.node)?;
    lab.sh("swapoff /dev/zram0")?;
    lab.fact("with swap", overflow);

    lab.step("more than the node has, without");
    let killed = killed(lab, region.node)?;
    lab.fact("without swap", killed);

    private.remove(lab, region.node, &range)?;
    private.unregister(lab, region.node)?;
    Ok(())
}

/// What becomes of pages that are bound to the node, and more than it has.
fn overflow(lab: &mut Lab, node: u32) -> Result<Value> {
    let mut memory = lab.guest.memory()?;
    let map = memory.map_anywhere(BYTES)?;
    memory.bind(map.all(), Policy::Bind, &[node], LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let nodes = memory.nodes(map.all())?;
    let elsewhere: u64 = nodes.nodes.iter().filter(|(id, _)| **id != node).map(|(_, pages)| pages).sum();
    let swapped = BYTES / PAGE - nodes.on(node) - elsewhere;
    let wrong = memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong;
    Ok(json!({ "pages elsewhere": elsewhere, "some are swapped": swapped > 0, "pages wrong": wrong }))
}

/// What becomes of the program.
fn killed(lab: &mut Lab, node: u32) -> Result<String> {
    let mut memory = lab.guest.memory()?;
    lab.sh(&format!("echo 1000 > /proc/{}/oom_score_adj", memory.program().pid()))?;
    let map = memory.map_anywhere(BYTES)?;
    memory.bind(map.all(), Policy::Bind, &[node], LIMIT)?;
    match memory.fill(map.all(), &DATA, LIMIT) {
        Ok(_) => Ok(format!("{:?}", memory.nodes(map.all())?.nodes)),
        Err(GuestError::Failed { failure, .. }) => Ok(failure.message.lines().next().unwrap_or_default().to_owned()),
        Err(error) => Err(error.into()),
    }
}
