//! The kernel's memory management does to a private node's pages only what the owner asks for: each service, off and on.

use cxl_cram_lab::guest::memory::Nodes;
use cxl_cram_lab::prelude::*;
use cxl_cram_lab::wire::memory::Advice;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "private_services",
    story: "the capability matrix: each service of mm on a private node, without its capability and with it",
    needs: &[
        Need::PrivateNodes,
        Need::Config("MEMCG"),
        Need::Config("NUMA_BALANCING"),
        Need::Config("KSM"),
        Need::Config("MEMORY_FAILURE"),
        Need::Path("/sys/block/zram0"),
        Need::Path("/sys/kernel/debug/gup_test"),
        Need::Path("/sys/kernel/mm/damon/admin"),
    ],
    machine: MachineShape { expected: &["invoked oom-killer"], ..MachineShape::USUAL },
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

const LIMIT: Duration = Duration::from_secs(20);
const PAGE: u64 = 4096;
const DATA: Pattern = Pattern::Compressible { seed: 71, ratio: 3.0 };
const OTHER: Pattern = Pattern::Compressible { seed: 72, ratio: 3.0 };

/// The status by which `move_pages` reports that it left a page alone.
const ENOENT: i32 = 2;

/// A service: its capabilities besides its own, and a function that observes its effect.
struct Service {
    name: &'static str,
    beside: &'static [Capability],
    capability: Capability,
    seen: fn(&mut Lab, &Node) -> Result<Value>,
}

const SERVICES: &[Service] = &[
    Service { name: "user migration", beside: &[], capability: Capability::Migration, seen: user_migration },
    Service { name: "mempolicy", beside: &[], capability: Capability::Mempolicy, seen: mempolicy },
    Service { name: "reclaim", beside: &[], capability: Capability::Reclaim, seen: reclaim },
    Service {
        name: "demotion target",
        beside: &[Capability::Reclaim],
        capability: Capability::Demotion,
        seen: demotion,
    },
    Service { name: "write protection", beside: &[], capability: Capability::ProtectWrite, seen: write_protection },
    Service { name: "NUMA balancing", beside: &[], capability: Capability::NumaBalancing, seen: numa_balancing },
    Service { name: "compaction", beside: &[], capability: Capability::Compaction, seen: compaction },
    Service { name: "long-term pin", beside: &[], capability: Capability::LongtermPin, seen: longterm_pin },
    Service { name: "OOM", beside: &[Capability::Mempolicy], capability: Capability::Oom, seen: out_of_memory },
    Service { name: "hot-unplug", beside: &[], capability: Capability::Hotunplug, seen: hot_unplug },
    Service { name: "memory failure", beside: &[], capability: Capability::MemoryFailure, seen: memory_failure },
];

/// The node, its memory, and the adapter for its kernel.
struct Node {
    private: &'static dyn Adapter,
    id: u32,
    range: std::ops::Range<u64>,
}

impl Node {
    /// The effect observed on a node with these capabilities.
    fn seen(
        &self,
        lab: &mut Lab,
        capabilities: &[Capability],
        see: fn(&mut Lab, &Self) -> Result<Value>,
    ) -> Result<Value> {
        self.private.add(lab, &Claim { node: self.id, owner: 0, capabilities }, &self.range)?;
        let seen = see(lab, self)?;
        if lab.node_bytes(self.id, "MemTotal")? > 0 {
            self.private.remove(lab, self.id, &self.range)?;
        }
        self.private.unregister(lab, self.id)?;
        Ok(seen)
    }

    /// Maps and fills pages of a program, and makes the owner put them on the node.
    fn pages(&self, memory: &mut Memory, pages: u64) -> Result<Mapping> {
        let map = memory.map_anywhere(pages * PAGE)?;
        memory.fill(map.all(), &DATA, LIMIT)?;
        self.private.place(memory, self.id, map.all())?;
        Ok(map)
    }

    /// How many pages of a mapping are on the node.
    fn holds(&self, memory: &mut Memory, map: &Mapping) -> Result<u64> {
        Ok(memory.nodes(map.all())?.on(self.id))
    }

    /// Where one page ended up: on the node, elsewhere, or the error of the page or of the call.
    fn came_to(&self, nodes: Result<Nodes, GuestError>) -> Result<String> {
        Ok(match &nodes {
            Ok(nodes) if nodes.on(self.id) == 1 => "on the node".to_owned(),
            Ok(nodes) if nodes.absent.contains_key(&ENOENT) => "ENOENT".to_owned(),
            Ok(nodes) if nodes.absent.is_empty() => "elsewhere".to_owned(),
            Ok(nodes) => format!("{:?}", nodes.absent),
            Err(_) => errno(nodes)?,
        })
    }
}

fn run(lab: &mut Lab) -> Result<()> {
    let region = lab.create_region_of(0, "-s 256M")?;
    let node = Node { private: lab.private_nodes()?, id: region.node, range: lab.take_range(&region)? };
    lab.sh("echo 64M > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0")?;
    for Service { name, beside, capability, seen } in SERVICES {
        lab.step(&format!("{name}, off"));
        let off = node.seen(lab, beside, *seen)?;
        lab.step(&format!("{name}, on"));
        let on = node.seen(lab, &[beside, &[*capability][..]].concat(), *seen)?;
        lab.fact(name, json!({ "off": off, "on": on }));
    }

    lab.step("operations that no capability allows");
    let all: Vec<_> = SERVICES.iter().map(|service| service.capability).collect();
    let all: Vec<_> = all.into_iter().filter(|&capability| capability != Capability::ProtectWrite).collect();
    let left_alone = node.seen(lab, &all, merged)?;
    lab.fact("KSM, MADV_COLLAPSE and khugepaged, all capabilities on", left_alone);
    Ok(())
}

fn user_migration(lab: &mut Lab, node: &Node) -> Result<Value> {
    let mut memory = lab.guest.memory()?;
    let other = memory.map_anywhere(PAGE)?;
    memory.fill(other.all(), &DATA, LIMIT)?;
    let to = node.came_to(memory.move_pages(other.all(), &[node.id], LIMIT))?;
    let map = node.pages(&mut memory, 8)?;
    let from = node.came_to(memory.move_pages(map.pages(0, 1), &[0], LIMIT))?;
    node.private.place(&mut memory, node.id, map.all())?;
    memory.migrate(&[node.id], &[0], LIMIT)?;
    let migrated = node.holds(&mut memory, &map)?;
    node.private.place(&mut memory, node.id, map.all())?;
    memory.ask(map.all(), Request::BindAndMove { node: 0 }, LIMIT)?;
    let bound = node.holds(&mut memory, &map)?;
    let wrong = memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong;
    Ok(json!({
        "move_pages to it": to, "move_pages from it": from,
        "of 8 pages, left by migrate_pages": migrated, "left by mbind(MPOL_MF_MOVE)": bound, "pages wrong": wrong,
    }))
}

fn mempolicy(lab: &mut Lab, node: &Node) -> Result<Value> {
    let mut memory = lab.guest.memory()?;
    let mut observed = serde_json::Map::new();
    for (policy, nodes) in [
        (Policy::Bind, &[node.id][..]),
        (Policy::Preferred, &[node.id]),
        (Policy::PreferredMany, &[node.id]),
        (Policy::Interleave, &[0, node.id]),
        (Policy::WeightedInterleave, &[0, node.id]),
    ] {
        let map = memory.map_anywhere(8 * PAGE)?;
        let result = errno(memory.bind(map.all(), policy, nodes, LIMIT))?;
        memory.fill(map.all(), &DATA, LIMIT)?;
        observed.insert(format!("mbind {policy:?}"), json!([result, node.holds(&mut memory, &map)?]));
    }
    let result = errno(memory.set_policy(Policy::Bind, &[node.id]))?;
    let map = memory.map_anywhere(8 * PAGE)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    observed.insert("set_mempolicy Bind".to_owned(), json!([result, node.holds(&mut memory, &map)?]));
    Ok(json!({ "of 8 pages, on the node": observed }))
}

fn reclaim(lab: &mut Lab, node: &Node) -> Result<Value> {
    let mut memory = lab.guest.memory()?;
    let map = node.pages(&mut memory, 8)?;
    let locked = lab.vmstat("unevictable_pgs_mlocked")?;
    memory.ask(map.all(), Request::Lock, LIMIT)?;
    let locked = lab.vmstat("unevictable_pgs_mlocked")? - locked;
    memory.touch(map.all(), false, 1, LIMIT)?;
    lab.fill_lru_lists()?;
    memory.advise(map.all(), Advice::Cold, LIMIT)?;
    let referenced = referenced(lab, &memory, &map)?;
    lab.fill_lru_lists()?;
    memory.advise(map.all(), Advice::PageOut, LIMIT)?;
    let left = node.holds(&mut memory, &map)?;
    let wrong = memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong;
    let map = node.pages(&mut memory, 8)?;
    lab.fill_lru_lists()?;
    let damon = damon_pageout(lab, &node.range)?;
    let left_by_damon = node.holds(&mut memory, &map)?;
    let wrong = wrong + memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong;
    Ok(json!({
        "of 8 pages, mlock counts": locked, "referenced after MADV_COLD": referenced,
        "left by MADV_PAGEOUT": left, "DAMON pages out": damon, "left by DAMON": left_by_damon, "pages wrong": wrong,
    }))
}

/// Makes DAMON page out a range of physical memory, and returns whether it did anything.
fn damon_pageout(lab: &Lab, range: &std::ops::Range<u64>) -> Result<bool> {
    const DAMON: &str = "/sys/kernel/mm/damon/admin/kdamonds";
    let (start, end) = (range.start, range.end);
    lab.sh(&format!(
        "cd {DAMON} && echo 1 > nr_kdamonds && cd 0/contexts && echo 1 > nr_contexts && cd 0 && \
         echo paddr > operations && cd monitoring_attrs/intervals && echo 1000 > sample_us && echo 20000 > aggr_us && \
         cd ../../targets && echo 1 > nr_targets && cd 0/regions && echo 1 > nr_regions && \
         echo {start} > 0/start && echo {end} > 0/end && \
         cd ../../../schemes && echo 1 > nr_schemes && cd 0 && echo pageout > action && cd access_pattern && \
         echo {} > sz/max && echo 100000 > nr_accesses/max && echo 100000 > age/max && echo on > {DAMON}/0/state",
        u64::MAX
    ))?;
    let figure = |lab: &Lab, name: &str| -> Result<u64> {
        lab.sh(&format!("echo update_schemes_stats > {DAMON}/0/state"))?;
        let path = format!("{DAMON}/0/contexts/0/schemes/0/stats/{name}");
        Ok(lab.guest.read_text(&path)?.trim().parse()?)
    };
    // Twice over, because regions are split and merged meanwhile.
    lab.wait("DAMON to try all of the range", |lab| Ok(figure(lab, "sz_tried")? >= 2 * (end - start)))?;
    let applied = figure(lab, "sz_applied")?;
    lab.sh(&format!("echo off > {DAMON}/0/state && echo 0 > {DAMON}/nr_kdamonds"))?;
    Ok(applied > 0)
}

fn demotion(lab: &mut Lab, node: &Node) -> Result<Value> {
    const PAGES: u64 = 2048;
    let group = lab.cgroup(&format!("cold{}", lab.guest.list_dir("/sys/fs/cgroup")?.len()))?;
    let mut memory = lab.memory_in(&group)?;
    let map = memory.map_anywhere(PAGES * PAGE)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    lab.write(&group, "memory.reclaim", &(PAGES * PAGE / 2).to_string())?;
    lab.sh("echo 0 > /sys/kernel/mm/numa/demotion_enabled")?;
    let nodes = memory.nodes(map.all())?;
    let wrong = memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong;
    Ok(json!({ "cold pages leave": nodes.on(0) < PAGES, "come to it": nodes.on(node.id) > 0, "pages wrong": wrong }))
}

fn write_protection(lab: &mut Lab, node: &Node) -> Result<Value> {
    let mut memory = lab.guest.memory()?;
    let map = node.pages(&mut memory, 8)?;
    memory.write(map.all(), Way::Store, &OTHER, LIMIT)?;
    let left = node.holds(&mut memory, &map)?;
    let wrong = memory.verify(map.all(), &OTHER, LIMIT)?.pages_wrong;
    let faults = node.private.notice_count(lab, node.id, Notice::WriteFault)?;
    Ok(json!({ "of 8 pages, left when written": left, "write faults": faults, "pages wrong": wrong }))
}

fn numa_balancing(lab: &mut Lab, node: &Node) -> Result<Value> {
    const PAGES: u64 = 256;
    /// More than ten rounds of the scanner.
    const BUSY: Duration = Duration::from_secs(1);
    lab.numa_balancing(1)?;
    let mut memory = lab.guest.memory()?;
    let map = node.pages(&mut memory, PAGES)?;
    let remote = |lab: &Lab| -> Result<u64> {
        let local = lab.vmstat("numa_hint_faults_local")?;
        Ok(lab.vmstat("numa_hint_faults")?.saturating_sub(local))
    };
    let before = remote(lab)?;
    let (mut hinted, mut left, mut busy) = (0, PAGES, Duration::ZERO);
    let end = Instant::now() + LIMIT;
    // The scanner runs by the program's busy time. Pages not hinted for longer are left alone; the others come back when they
    // are hinted a second time.
    while left == PAGES && (hinted > 0 || busy < BUSY) && Instant::now() < end {
        busy += memory.touch(map.all(), false, 10_000, LIMIT)?;
        hinted = remote(lab)?.saturating_sub(before);
        left = node.holds(&mut memory, &map)?;
    }
    lab.figure("NUMA balancing: busy", format!("{busy:?}, {hinted} hinting faults"));
    lab.numa_balancing(0)?;
    Ok(json!({ "hinting faults": hinted >= PAGES, "promoted": left < PAGES }))
}

fn compaction(lab: &mut Lab, node: &Node) -> Result<Value> {
    // Three pageblocks with the second half free: pages are not moved to a block that is all free.
    const BLOCK: u64 = 512;
    let mut memory = lab.guest.memory()?;
    let map = node.pages(&mut memory, 3 * BLOCK)?;
    memory.advise(map.pages(BLOCK, BLOCK / 2), Advice::DontNeed, LIMIT)?;
    let thread = lab.holds(&format!("grep -qx kcompactd{} /proc/[0-9]*/comm", node.id))?;
    let before = memory.physical(&map, 0, BLOCK)?;
    lab.sh("echo 1 > /proc/sys/vm/compact_memory")?;
    let moved = memory.physical(&map, 0, BLOCK)? != before;
    let wrong = memory.verify(map.pages(0, BLOCK), &DATA, LIMIT)?.pages_wrong;
    Ok(json!({
        "kcompactd": thread, "compact_memory moves pages": moved,
        "of 512 pages, on the node": memory.nodes(map.pages(0, BLOCK))?.on(node.id), "pages wrong": wrong,
    }))
}

fn longterm_pin(lab: &mut Lab, node: &Node) -> Result<Value> {
    let mut memory = lab.guest.memory()?;
    let map = node.pages(&mut memory, 8)?;
    let pinned = errno(memory.ask(map.all(), Request::PinLongterm, LIMIT))?;
    Ok(json!({ "FOLL_LONGTERM": pinned, "of 8 pages, on the node": node.holds(&mut memory, &map)? }))
}

fn out_of_memory(lab: &mut Lab, node: &Node) -> Result<Value> {
    for order in [9, 0] {
        let full = errno(node.private.allocate(lab, node.id, order, 1 << 20, true))?;
        ensure!(full == "ENOMEM", "the owner cannot take all of its node: {full}");
    }
    let mut memory = lab.guest.memory()?;
    lab.sh(&format!("echo 1000 > /proc/{}/oom_score_adj", memory.program().pid()))?;
    let map = memory.map_anywhere(8 * PAGE)?;
    memory.bind(map.all(), Policy::Bind, &[node.id], LIMIT)?;
    let came = match memory.fill(map.all(), &DATA, LIMIT) {
        Ok(_) => node.came_to(memory.nodes(map.pages(0, 1)))?,
        Err(GuestError::Failed { failure, .. }) => failure.message.lines().next().unwrap_or_default().to_owned(),
        Err(error) => return Err(error.into()),
    };
    node.private.free(lab, node.id)?;
    Ok(json!({ "bound to the full node": came }))
}

fn hot_unplug(lab: &mut Lab, node: &Node) -> Result<Value> {
    let mut memory = lab.guest.memory()?;
    let map = node.pages(&mut memory, 8)?;
    let removed = errno(node.private.remove(lab, node.id, &node.range))?;
    let (left, wrong) = (node.holds(&mut memory, &map)?, memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong);
    Ok(json!({ "offline": removed, "of 8 pages, left": left, "pages wrong": wrong }))
}

fn memory_failure(lab: &mut Lab, node: &Node) -> Result<Value> {
    let mut memory = lab.guest.memory()?;
    memory.guard(false)?;
    let map = node.pages(&mut memory, 8)?;
    let hard = errno(memory.advise(map.pages(3, 1), Advice::HwPoison, LIMIT))?;
    let soft = errno(memory.advise(map.pages(5, 1), Advice::SoftOffline, LIMIT))?;
    memory.touch(map.all(), false, 1, LIMIT)?;
    let left = node.holds(&mut memory, &map)?;
    Ok(json!({ "MADV_HWPOISON": hard, "MADV_SOFT_OFFLINE": soft, "of 8 pages, left": left,
        "signals": memory.faults()?.len() }))
}

/// Offers equal pages, on the node and off it, to KSM, and small pages, some on the node, to khugepaged.
fn merged(lab: &mut Lab, node: &Node) -> Result<Value> {
    let mut memory = lab.guest.memory()?;
    let (map, ordinary) = (memory.map_anywhere(4 * PAGE)?, memory.map_anywhere(4 * PAGE)?);
    for map in [&map, &ordinary] {
        memory.fill(map.all(), &Pattern::Zero, LIMIT)?;
    }
    node.private.place(&mut memory, node.id, map.all())?;
    for map in [&map, &ordinary] {
        memory.ask(map.all(), Request::Mergeable, LIMIT)?;
    }
    const KSM: &str = "/sys/kernel/mm/ksm";
    let figure =
        |lab: &Lab, name: &str| -> Result<u64> { Ok(lab.guest.read_text(&format!("{KSM}/{name}"))?.trim().parse()?) };
    lab.sh(&format!("cd {KSM} && echo 1 > sleep_millisecs && echo 1000 > pages_to_scan && echo 1 > run"))?;
    lab.wait("the ordinary pages to be merged", |lab| Ok(figure(lab, "pages_sharing")? >= 3))?;
    let scans = figure(lab, "full_scans")?;
    lab.wait("two more scans", |lab| Ok(figure(lab, "full_scans")? >= scans + 2))?;
    let (shared, sharing) = (figure(lab, "pages_shared")?, figure(lab, "pages_sharing")?);
    let left = node.holds(&mut memory, &map)?;
    lab.sh(&format!("echo 2 > {KSM}/run"))?;

    let small = memory.map_anywhere(2 << 20)?;
    memory.fill(small.all(), &DATA, LIMIT)?;
    // A huge page comes from the node with most of its pages: ordinary memory, if these pages could be part of one.
    let placed = small.pages(0, 128);
    node.private.place(&mut memory, node.id, placed)?;
    // khugepaged scans these pages, and ordinary ones, which it makes huge.
    const KHUGEPAGED: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged";
    let figure = |lab: &Lab, name: &str| -> Result<u64> {
        Ok(lab.guest.read_text(&format!("{KHUGEPAGED}/{name}"))?.trim().parse()?)
    };
    let usual = memory.map_anywhere(2 << 20)?;
    memory.fill(usual.all(), &DATA, LIMIT)?;
    let before = figure(lab, "pages_collapsed")?;
    memory.ask(usual.all(), Request::Huge, LIMIT)?;
    // It collapses only pages in use, and the pages on the node are new there.
    memory.ask(small.all(), Request::Huge, LIMIT)?;
    memory.touch(small.all(), false, 1, LIMIT)?;
    lab.sh(&format!(
        "cd {KHUGEPAGED} && echo 1 > scan_sleep_millisecs && echo 1 > alloc_sleep_millisecs && \
        echo 4096 > pages_to_scan"
    ))?;
    lab.wait("khugepaged to make the ordinary pages huge", |lab| Ok(figure(lab, "pages_collapsed")? > before))?;
    let scans = figure(lab, "full_scans")?;
    lab.wait("two more scans of khugepaged", |lab| Ok(figure(lab, "full_scans")? >= scans + 2))?;
    let by_khugepaged = figure(lab, "pages_collapsed")? - before;
    let collapsed = errno(memory.ask(small.all(), Request::Collapse, LIMIT))?;
    Ok(json!({
        "khugepaged: of 2 MiB with pages on the node and 2 MiB off it, made huge": by_khugepaged,
        "KSM: of 4 pages alike on the node and 4 off it": { "shared": shared, "sharing": sharing, "left": left },
        "MADV_COLLAPSE": collapsed, "of 128 pages, left": node.holds(&mut memory, &small)?,
    }))
}

/// How many pages of a mapping were referenced, by the page tables.
fn referenced(lab: &Lab, memory: &Memory, map: &Mapping) -> Result<u64> {
    // A mapping merges only with a neighbour like it; this one is still separate.
    let smaps = lab.guest.read_text(&format!("/proc/{}/smaps", memory.program().pid()))?;
    let begin = format!("{:x}-", map.address);
    let mine = smaps.split_once(&begin).with_context(|| format!("smaps has no mapping at {begin}"))?.1;
    let kib = mine.lines().find_map(|line| line.strip_prefix("Referenced:")?.trim().strip_suffix(" kB"));
    Ok(kib.context("smaps has no Referenced")?.trim().parse::<u64>()? * 1024 / PAGE)
}
