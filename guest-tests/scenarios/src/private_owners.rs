//! Two private nodes with different owners, as cgroups, cpusets and processes see them.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "private_owners",
    story: "two devices, two owners' nodes: each allocates from its own; memory.numa_stat, numa_maps and cpusets agree",
    needs: &[Need::PrivateNodes, Need::Config("MEMCG"), Need::Config("CPUSETS")],
    devices: &[
        DeviceShape::USUAL,
        DeviceShape {
            capacity: 256 << 20,
            physical: 128 << 20,
            cache: 64 << 20,
            codec: Codec::Lz4,
            more: &["--serial", "0x2222"],
        },
    ],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const BYTES: u64 = 16 * MIB;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 71, ratio: 3.0 };
const GROUP: &str = "/sys/fs/cgroup/job";

fn run(lab: &mut Lab) -> Result<()> {
    let private = lab.private_nodes()?;
    let regions = [lab.create_region_on(0)?, lab.create_region_on(1)?];
    let ranges = [lab.take_range(&regions[0])?, lab.take_range(&regions[1])?];
    let [open, closed] = [regions[0].node, regions[1].node];
    let claims = [
        Claim { node: open, owner: 0, capabilities: &[Capability::Migration, Capability::Mempolicy] },
        Claim { node: closed, owner: 1, capabilities: &[] },
    ];

    lab.step("two owners");
    for (claim, range) in claims.iter().zip(&ranges) {
        lab.fact(&format!("claim of node {}", claim.node), errno(private.add(lab, claim, range))?);
    }
    lab.fact("private nodes", lab.guest.read_text(private.list())?);
    lab.fact("an owner removes the other's range", errno(private.remove(lab, open, &ranges[1]))?);
    let intruder = Claim { node: closed, ..claims[0] };
    lab.fact("an owner claims the other's node", errno(private.add(lab, &intruder, &ranges[1]))?);

    lab.step("each exhausts its node, and gets nothing from the other");
    for (mine, other) in [(open, closed), (closed, open)] {
        let (total, before) = (lab.node_bytes(mine, "MemTotal")?, lab.allocations_from(other)?);
        let result = errno(private.allocate(lab, mine, 0, 2 * total / 4096, true))?;
        let all = lab.node_bytes(mine, "MemFree")? < 2 * MIB;
        let taken = lab.allocations_from(other)? - before;
        lab.fact(
            &format!("node {mine} exhausted"),
            json!({ "said": result, "all of it": all, "from the other": taken }),
        );
        private.free(lab, mine)?;
    }

    lab.step("pages of a process on both: node 0, by its policy, by its owner");
    let job = lab.cgroup("job")?;
    let mut memory = lab.memory_in(&job)?;
    let maps = [memory.map_anywhere(BYTES)?, memory.map_anywhere(BYTES)?, memory.map_anywhere(BYTES)?];
    memory.bind(maps[1].all(), Policy::Bind, &[open], LIMIT)?;
    for map in &maps {
        memory.fill(map.all(), &DATA, LIMIT)?;
    }
    let moved = errno(memory.move_pages(maps[1].pages(0, 1), &[closed], LIMIT))?;
    lab.fact("move_pages from the one to the other", moved);
    private.place(&mut memory, closed, maps[2].all())?;
    for (name, map) in ["anywhere", "bound", "placed"].into_iter().zip(&maps) {
        let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
        lab.fact(&format!("{name}.pages by node"), memory.nodes(map.all())?.nodes);
        lab.fact(&format!("{name}.pages wrong"), verdict.pages_wrong);
    }
    for device in [0, 1] {
        let used = lab.devices[device].status()?.used;
        lab.fact(&format!("device {device} holds its 16 MiB, compressed"), (BYTES / 4..BYTES / 2).contains(&used));
        lab.figure(&format!("device {device} uses"), format_bytes(used));
    }

    lab.step("as a memory cgroup counts them");
    let numa = lab.guest.read_text(&format!("{GROUP}/memory.numa_stat"))?;
    let anon = numa.lines().find_map(|line| line.strip_prefix("anon ")).context("memory.numa_stat has no anon")?;
    // Per-processor counters reach the node's total a little later.
    let about = |bytes: u64| bytes.abs_diff(BYTES) < MIB;
    for node in [open, closed] {
        let bytes = anon.split(' ').find_map(|word| word.strip_prefix(&format!("N{node}=")));
        let bytes = bytes.context("memory.numa_stat does not have the node")?.parse()?;
        lab.fact(&format!("node {node}.16 MiB in memory.numa_stat"), about(bytes));
        lab.fact(&format!("node {node}.16 MiB in its meminfo"), about(lab.node_bytes(node, "AnonPages")?));
    }
    lab.fact("the cgroup is charged for all of them", lab.stat(&job, "anon")? >= 3 * BYTES);

    lab.step("as numa_maps shows them");
    let maps_file = lab.guest.read_text(&format!("/proc/{}/numa_maps", memory.program().pid()))?;
    for (name, map) in ["bound", "placed"].into_iter().zip(&maps[1..]) {
        let address = format!("{:08x} ", map.address);
        let line =
            maps_file.lines().find(|line| line.starts_with(&address)).context("the mapping is not in numa_maps")?;
        // The policy, and pages by node.
        let mut words = line.split(' ').skip(1);
        let policy = words.next();
        let words: Vec<_> = policy.into_iter().chain(words.filter(|word| word.starts_with('N'))).collect();
        lab.fact(&format!("numa_maps.{name}"), words);
    }

    lab.step("cpusets have no private nodes, and do not restrict policies for them");
    lab.sh("echo +cpuset > /sys/fs/cgroup/cgroup.subtree_control")?;
    lab.fact("cpuset.mems.effective of the root", lab.guest.read_text("/sys/fs/cgroup/cpuset.mems.effective")?);
    lab.fact("Mems_allowed_list", allowed(lab, &memory)?);
    for mems in ["0".to_owned(), format!("{open}"), format!("0,{open},{closed}")] {
        let result = errno(lab.guest.write_file(&format!("{GROUP}/cpuset.mems"), mems.as_str()))?;
        let effective = lab.guest.read_text(&format!("{GROUP}/cpuset.mems.effective"))?;
        let fresh = memory.map_anywhere(MIB)?;
        memory.bind(fresh.all(), Policy::Bind, &[open], LIMIT)?;
        memory.fill(fresh.all(), &DATA, LIMIT)?;
        let nodes = memory.nodes(fresh.all())?.nodes;
        memory.free(fresh)?;
        let allowed = allowed(lab, &memory)?;
        let seen = json!({ "said": result, "effective": effective, "allowed": allowed, "bound pages by node": nodes });
        lab.fact(&format!("cpuset.mems {mems}"), seen);
    }
    for (name, map) in ["anywhere", "bound", "placed"].into_iter().zip(&maps) {
        lab.fact(&format!("{name}.pages by node after cpusets"), memory.nodes(map.all())?.nodes);
    }

    lab.step("users move pages to a node only if its owner allows it, and off it");
    lab.fact("migrate_pages to the other", errno(memory.migrate(&[open], &[closed], LIMIT))?);
    lab.fact("pages left by migrate_pages to node 0", memory.migrate(&[open, closed], &[0], LIMIT)?);
    for (name, map) in ["bound", "placed"].into_iter().zip(&maps[1..]) {
        lab.fact(&format!("{name}.pages by node then"), memory.nodes(map.all())?.nodes);
        let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
        lab.fact(&format!("{name}.pages wrong then"), verdict.pages_wrong);
    }

    lab.step("one is given up, the other is unaffected");
    for (name, node, notice) in [("bound", open, Notice::MovedOut), ("placed", closed, Notice::MovedIn)] {
        lab.fact(&format!("{name}.owner told of {notice:?}"), private.notice_count(lab, node, notice)?);
    }
    lab.fact("remove", errno(private.remove(lab, open, &ranges[0]))?);
    lab.fact("unregister", errno(private.unregister(lab, open))?);
    lab.fact("private nodes then", lab.guest.read_text(private.list())?);
    let verdict = memory.verify(maps[2].all(), &DATA, LIMIT)?;
    lab.fact("placed.pages wrong at the end", verdict.pages_wrong);
    Ok(())
}

/// The nodes that a program may allocate from, from its status file.
fn allowed(lab: &Lab, memory: &Memory) -> Result<String> {
    let status = lab.guest.read_text(&format!("/proc/{}/status", memory.program().pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"));
    Ok(line.context("status has no Mems_allowed_list")?.trim().to_owned())
}
