//! A private node stays empty, whatever allocates memory and however little there is elsewhere.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "private_isolation",
    story: "DRAM is exhausted by every way to ask for memory; not a page comes from the private node, but its owner's",
    needs: &[
        Need::PrivateNodes,
        Need::Config("CPUSETS"),
        Need::Config("HUGETLBFS"),
        Need::Config("MEMCG"),
        Need::Config("NUMA_BALANCING"),
        Need::Path("/sys/block/zram0"),
    ],
    // The second device is ordinary memory, to which pages can be evacuated.
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
    machine: MachineShape {
        memory_mib: 384,
        corpus: true,
        expected: &["Out of memory: Killed process"],
        ..MachineShape::USUAL
    },
    limit: Duration::from_secs(90),
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
/// More than there is.
const TOO_MUCH: u64 = 1024 * MIB;
/// Pages that vmalloc must take: 16 MiB.
const VMALLOC_PAGES: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(60);
const POLICIES: [Policy; 5] =
    [Policy::Bind, Policy::Preferred, Policy::PreferredMany, Policy::Interleave, Policy::WeightedInterleave];

fn run(lab: &mut Lab) -> Result<()> {
    let private = lab.private_nodes()?;
    let region = lab.create_region_on(0)?;
    let (range, node) = (lab.take_range(&region)?, region.node);
    let ordinary = lab.create_region_on(1)?.node;
    lab.online_node(ordinary)?;
    private.add(lab, &Claim { node, owner: 0, capabilities: &[] }, &range)?;
    lab.fact("private nodes", lab.guest.read_text(private.list())?);
    lab.fact("nodes with memory", lab.guest.read_text("/sys/devices/system/node/has_memory")?);
    let empty = |lab: &mut Lab, after: &str| -> Result<()> {
        let (used, allocations) = (lab.node_bytes(node, "MemUsed")?, lab.allocations_from(node)?);
        let held = lab.device().status()?.used;
        lab.fact(&format!("{after}.node"), json!({ "used": used, "allocations": allocations, "on the device": held }));
        Ok(())
    };
    empty(lab, "claimed")?;

    lab.step("policies of the node, and of ordinary nodes too");
    // Newer kernels make weights of the bandwidths that firmware reports.
    for node in [0, ordinary] {
        lab.guest.write_file(&format!("/sys/kernel/mm/mempolicy/weighted_interleave/node{node}"), "1")?;
    }
    let mut memory = lab.guest.memory()?;
    for policy in POLICIES {
        let set = errno(memory.set_policy(policy, &[node]))?;
        let map = memory.map_anywhere(MIB)?;
        memory.fill(map.all(), &Pattern::Zero, LIMIT)?;
        let moved = errno(memory.bind(map.all(), policy, &[node], LIMIT))?;
        memory.free(map)?;
        lab.fact(&format!("{policy:?}.of the node alone"), json!({ "set_mempolicy": set, "mbind": moved }));
        if policy != Policy::Preferred {
            memory.set_policy(policy, &[0, node, ordinary])?;
            let map = memory.map_anywhere(MIB)?;
            memory.fill(map.all(), &Pattern::Zero, LIMIT)?;
            let set = memory.nodes(map.all())?.nodes;
            memory.bind(map.all(), policy, &[0, node, ordinary], LIMIT)?;
            let moved = memory.nodes(map.all())?.nodes;
            memory.free(map)?;
            lab.fact(&format!("{policy:?}.pages by node"), json!({ "set_mempolicy": set, "mbind": moved }));
        }
        memory.set_policy(Policy::Default, &[])?;
    }
    empty(lab, "policies")?;

    lab.step("users move pages");
    let map = memory.map_anywhere(MIB)?;
    memory.fill(map.all(), &Pattern::Zero, LIMIT)?;
    let moved = memory.move_pages(map.all(), &[node], LIMIT);
    let result = match moved {
        Ok(nodes) => json!({ "pages by node": nodes.nodes, "by error": nodes.absent }),
        refused => json!(errno(refused)?),
    };
    lab.fact("move_pages", result);
    lab.fact("migrate_pages", errno(memory.migrate(&[0], &[node], LIMIT))?);
    lab.fact("pages by node", memory.nodes(map.all())?.nodes);
    drop(memory);

    lab.step("a cpuset of the node");
    lab.sh("echo '+cpuset +memory' > /sys/fs/cgroup/cgroup.subtree_control && mkdir /sys/fs/cgroup/set")?;
    let set = |lab: &Lab, mems: &str| errno(lab.guest.write_file("/sys/fs/cgroup/set/cpuset.mems", mems));
    for mems in [format!("{node}"), format!("0,{node},{ordinary}")] {
        let result = set(lab, &mems)?;
        let effective = lab.guest.read_text("/sys/fs/cgroup/set/cpuset.mems.effective")?;
        lab.fact(&format!("cpuset.mems {mems}"), json!({ "said": result, "effective": effective }));
    }

    lab.step("hugetlb pools: of the node (__GFP_THISNODE), and of all memory");
    let pool = |node: u32| format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages");
    lab.sh(&format!("echo 4 > {}", pool(node)))?;
    lab.fact("huge pages asked of the node", lab.guest.read_text(&pool(node))?);
    lab.sh("echo 1024 > /proc/sys/vm/nr_hugepages")?;
    let pages = [0, node, ordinary].into_iter().map(|node| Ok(lab.guest.read_text(&pool(node))?.parse()?));
    let pages: Vec<u64> = pages.collect::<Result<_>>()?;
    lab.figure("huge pages by node", format!("{pages:?}"));
    lab.fact("nodes have huge pages", pages.iter().map(|&pages| pages > 0).collect::<Vec<_>>());
    // Most huge pages stay, so that the next steps run short of memory sooner.
    let kept = pages.iter().sum::<u64>().saturating_sub(72);
    lab.sh(&format!("echo {kept} > /proc/sys/vm/nr_hugepages"))?;
    empty(lab, "moved, in cpusets, in pools")?;

    lab.step("the page cache takes all of DRAM");
    let scanned = lab.vmstat("pgscan_")?;
    lab.refused(&format!("mkdir -p /run/full && mount -t tmpfs -o mpol=bind:{node} none /run/full"))?;
    lab.sh("mkdir -p /run/full && mount -t tmpfs -o mpol=interleave,size=48M none /run/full")?;
    lab.sh("dd if=/dev/zero of=/run/full/file bs=1M count=48 2>/dev/null; dd if=/dev/vda of=/dev/null bs=1M count=160 2>/dev/null")?;
    lab.fact("cache.reclaim was needed", lab.vmstat("pgscan_")? > scanned);
    empty(lab, "cache")?;

    lab.step("kernel memory: inodes, dentries, per-cpu counters of cgroups, stacks, pipes");
    lab.sh("mkdir /run/full/d && cd /run/full/d && for i in $(seq 2000); do : > $i; done; \
        for i in $(seq 40); do mkdir /sys/fs/cgroup/set$i; sleep 0 | cat & done; wait; \
        rmdir /sys/fs/cgroup/set?*")?;
    empty(lab, "kernel")?;

    lab.step("vmalloc, which modules use too: the table of a disk, the map of a swap area");
    let before = vmalloc_pages(lab)?;
    // An entry of the table is 16 bytes, and several times that with lock debugging: grow the disk until there is enough.
    let mut taken = 0;
    for disk in ["1G", "2G", "4G"] {
        lab.sh(&format!("echo {disk} > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0"))?;
        taken = vmalloc_pages(lab)?.saturating_sub(before);
        lab.sh("swapoff /dev/zram0 && echo 1 > /sys/block/zram0/reset")?;
        if taken >= VMALLOC_PAGES {
            break;
        }
    }
    lab.fact("vmalloc.16 MiB and more", taken >= VMALLOC_PAGES);
    empty(lab, "vmalloc")?;

    lab.step("anonymous memory until the OOM killer runs, under each policy");
    for policy in std::iter::once(Policy::Default).chain(POLICIES).filter(|&policy| policy != Policy::Preferred) {
        let kills = lab.vmstat("oom_kill")?;
        let mut hog = lab.guest.memory()?;
        lab.guest.write_file(&format!("/proc/{}/oom_score_adj", hog.program().pid()), "1000")?;
        if policy != Policy::Default {
            hog.set_policy(policy, &[0, node, ordinary])?;
        }
        let map = hog.map_anywhere(TOO_MUCH)?;
        let survived = hog.touch(map.all(), true, 1, LIMIT).is_ok();
        let kills = lab.vmstat("oom_kill")? - kills;
        lab.fact(&format!("until killed.{policy:?}"), json!({ "survived": survived, "kills": kills }));
    }
    empty(lab, "exhausted")?;

    lab.step("NUMA balancing, compaction, demotion, evacuation");
    lab.sh("umount /run/full && echo 0 > /proc/sys/vm/nr_hugepages")?;
    lab.sh(&format!("echo 1 > /sys/devices/system/node/node{node}/compact"))?;
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    lab.numa_balancing(1)?;
    let cold = lab.cgroup("cold")?;
    let mut memory = lab.memory_in(&cold)?;
    let map = memory.map_anywhere(8 * MIB)?;
    memory.fill(map.all(), &Pattern::Zero, LIMIT)?;
    memory.move_pages(map.all(), &[ordinary], LIMIT)?;
    let (promoted, end) = (lab.vmstat("numa_pages_migrated")?, Instant::now() + LIMIT);
    while memory.nodes(map.all())?.on(0) == 0 && Instant::now() < end {
        memory.touch(map.all(), false, 300, LIMIT)?;
    }
    lab.numa_balancing(0)?;
    lab.fact("NUMA balancing moved pages", lab.vmstat("numa_pages_migrated")? > promoted);
    for _ in 0..2 {
        lab.reclaim(&cold, 8 * MIB)?;
    }
    lab.fact("pages were demoted", lab.vmstat("pgdemote_")? > 0);
    memory.move_pages(map.all(), &[ordinary], LIMIT)?;
    lab.offline_node(ordinary)?;
    lab.fact("pages by node, off the node that went offline", memory.nodes(map.all())?.nodes);
    let threads = lab.sh("cat /proc/[0-9]*/comm")?;
    let threads: Vec<_> = [format!("kswapd{node}"), format!("kcompactd{node}")]
        .into_iter()
        .filter(|name| threads.lines().any(|comm| comm == name))
        .collect();
    lab.fact("kernel threads of the node", threads);
    empty(lab, "balanced")?;
    drop(memory);

    lab.step("only its owner allocates");
    for (order, count) in [(0, 100), (9, 10)] {
        let before = lab.allocations_from(node)?;
        let result = errno(private.allocate(lab, node, order, count, true))?;
        let made = lab.allocations_from(node)? - before;
        lab.fact(&format!("owner.{count} of order {order}"), json!({ "said": result, "allocations": made }));
    }
    lab.fact("owner.unmovable", errno(private.allocate(lab, node, 0, 1, false))?);
    private.free(lab, node)?;
    lab.fact("owner.told of folios freed", private.notice_count(lab, node, Notice::Freed)?);
    // More than there is: it fails, and no process is killed.
    let kills = lab.vmstat("oom_kill")?;
    lab.fact("owner.more than the node has", errno(private.allocate(lab, node, 0, TOO_MUCH / 4096, true))?);
    lab.fact("owner.kills", lab.vmstat("oom_kill")? - kills);
    private.free(lab, node)?;
    Ok(())
}

/// Pages that vmalloc has mapped. /proc/vmallocinfo also shows their nodes, but only nodes with memory for the kernel.
fn vmalloc_pages(lab: &Lab) -> Result<u64> {
    let areas = lab.guest.read_text("/proc/vmallocinfo")?;
    let pages = areas.split_whitespace().filter_map(|word| word.strip_prefix("pages="));
    pages.map(|pages| Ok(pages.parse::<u64>()?)).sum()
}
