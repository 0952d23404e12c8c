//! A private node that is never mapped writable: each way to write a page ends in ordinary memory, with the right content.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "private_write_protection",
    story: "a write-protected private node is read in place; every way to write costs one fault a page and ends elsewhere",
    needs: &[
        Need::PrivateNodes,
        Need::Path("/sys/kernel/debug/split_huge_pages"),
        Need::Config("USERFAULTFD"),
        Need::Path("/sys/block/zram0"),
    ],
    run,
    ..Scenario::USUAL
};

const LIMIT: Duration = Duration::from_secs(20);
const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;
const BEFORE: Pattern = Pattern::Compressible { seed: 31, ratio: 3.0 };
const AFTER: Pattern = Pattern::Compressible { seed: 32, ratio: 3.0 };
const WAYS: [Way; 10] = [
    Way::Store,
    Way::Child,
    Way::Parent,
    Way::Mprotect,
    Way::Mremap,
    Way::ProcessVm,
    Way::ProcMem,
    Way::Read,
    Way::UserfaultMove,
    Way::UserfaultProtect,
];

/// The node, and the adapter for its kernel.
struct Node {
    adapter: &'static dyn Adapter,
    id: u32,
}

impl Node {
    fn place(&self, memory: &mut Memory, map: &Mapping) -> Result<()> {
        Ok(self.adapter.place(memory, self.id, map.all())?)
    }

    fn notice_count(&self, lab: &Lab, notice: Notice) -> Result<u64> {
        self.adapter.notice_count(lab, self.id, notice)
    }
}

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("a node that is never mapped writable");
    let region = lab.create_region_on(0)?;
    let (adapter, range) = (lab.private_nodes()?, lab.take_range(&region)?);
    let claim = Claim { node: region.node, owner: 0, capabilities: &[Capability::ProtectWrite] };
    adapter.add(lab, &claim, &range)?;
    let node = Node { adapter, id: region.node };

    for (owner, answer) in [("copies", WriteFault::Copy), ("promotes", WriteFault::Promote)] {
        lab.step(&format!("small pages, an owner that {owner}"));
        adapter.on_write_fault(lab, node.id, answer)?;
        let mut memory = lab.guest.memory()?;
        let mut ways = serde_json::Map::new();
        for way in WAYS {
            let map = memory.map_anywhere(4 * PAGE)?;
            let name = json!(way).as_str().unwrap_or_default().to_owned();
            ways.insert(name, written(lab, &node, &mut memory, &map, way)?);
        }
        lab.fact(&format!("an owner that {owner}"), ways);
    }
    adapter.on_write_fault(lab, node.id, WriteFault::Copy)?;

    lab.step("one huge page");
    let mut memory = lab.guest.memory()?;
    let map = memory.map_huge(HUGE, LIMIT)?;
    memory.fill(map.all(), &BEFORE, LIMIT)?;
    node.place(&mut memory, &map)?;
    memory.verify(map.all(), &BEFORE, LIMIT)?;
    lab.fact("pages on the node", memory.nodes(map.all())?.on(node.id));
    lab.fact("mapped as one", huge(lab, &memory)?);
    lab.fact("a page of it written", part(lab, &node, &mut memory, &map, 5)?);
    let split = node.notice_count(lab, Notice::Split)?;
    memory.ask(map.all(), Request::Split, LIMIT)?;
    lab.fact("split", node.notice_count(lab, Notice::Split)? - split);
    lab.fact("a page written after the split", part(lab, &node, &mut memory, &map, 9)?);

    lab.step("one huge page, after mprotect");
    let map = memory.map_huge(HUGE, LIMIT)?;
    memory.fill(map.all(), &BEFORE, LIMIT)?;
    node.place(&mut memory, &map)?;
    let faults = node.notice_count(lab, Notice::WriteFault)?;
    memory.write(map.pages(7, 1), Way::Mprotect, &AFTER, LIMIT)?;
    lab.fact("a page of it written after mprotect", node.notice_count(lab, Notice::WriteFault)? - faults);

    lab.step("one huge page, moved and write-protected by userfaultfd");
    for (what, request) in [("moved", Request::UserfaultMove), ("write-protected", Request::UserfaultProtect)] {
        let map = memory.map_huge(HUGE, LIMIT)?;
        memory.fill(map.all(), &BEFORE, LIMIT)?;
        node.place(&mut memory, &map)?;
        memory.ask(map.all(), request, LIMIT)?;
        let whole = huge_at(lab, &memory, &map)?;
        let seen = part(lab, &node, &mut memory, &map, 5)?;
        lab.fact(&format!("a huge page {what}"), json!({ "mapped as one": whole, "a page of it written": seen }));
    }

    lab.step("an owner that refuses");
    adapter.on_write_fault(lab, node.id, WriteFault::Refuse)?;
    let map = memory.map_anywhere(PAGE)?;
    memory.fill(map.all(), &BEFORE, LIMIT)?;
    node.place(&mut memory, &map)?;
    let refused = memory.write(map.all(), Way::Store, &AFTER, LIMIT);
    let Err(GuestError::Failed { failure, .. }) = refused else { bail!("the store went through: {refused:?}") };
    lab.fact("an owner that refuses", failure.message.lines().next());
    drop(memory);

    lab.step("pages unmapped, but still in the swap cache");
    lab.sh("echo 64M > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0")?;
    adapter.remove(lab, node.id, &range)?;
    adapter.unregister(lab, node.id)?;
    let capabilities = &[Capability::ProtectWrite, Capability::Reclaim];
    adapter.add(lab, &Claim { capabilities, ..claim }, &range)?;
    let mut memory = lab.guest.memory()?;
    for (owner, answer) in [("copies", WriteFault::Copy), ("promotes", WriteFault::Promote)] {
        adapter.on_write_fault(lab, node.id, answer)?;
        let map = memory.map_anywhere(4 * PAGE)?;
        let seen = written(lab, &node, &mut memory, &map, Way::SwapCache)?;
        lab.fact(&format!("swap cache, an owner that {owner}"), seen);
    }
    Ok(())
}

/// Reads pages on the node, then writes them. Returns where they are each time, the cost, and whether their content is right.
fn written(lab: &Lab, node: &Node, memory: &mut Memory, map: &Mapping, way: Way) -> Result<Value> {
    memory.fill(map.all(), &BEFORE, LIMIT)?;
    node.place(memory, map)?;
    let placed = node.notice_count(lab, Notice::WriteFault)?;
    let misread = memory.verify(map.all(), &BEFORE, LIMIT)?.pages_wrong;
    let (read, faults) = (memory.nodes(map.all())?.on(node.id), node.notice_count(lab, Notice::WriteFault)?);
    memory.write(map.all(), way, &AFTER, LIMIT)?;
    let (left, after) = (memory.nodes(map.all())?.on(node.id), node.notice_count(lab, Notice::WriteFault)?);
    // A child's write does not change its parent's page.
    let content = if way == Way::Child { &BEFORE } else { &AFTER };
    let wrong = memory.verify(map.all(), content, LIMIT)?.pages_wrong;
    Ok(json!({
        "read": { "on the node": read, "faults": faults - placed, "pages wrong": misread },
        "written": { "on the node": left, "faults": after - faults, "pages wrong": wrong },
    }))
}

/// Writes one page of a huge page.
fn part(lab: &Lab, node: &Node, memory: &mut Memory, map: &Mapping, page: u64) -> Result<Value> {
    let (before, faults) = (memory.nodes(map.all())?.on(node.id), node.notice_count(lab, Notice::WriteFault)?);
    memory.write(map.pages(page, 1), Way::Store, &AFTER, LIMIT)?;
    let faults = node.notice_count(lab, Notice::WriteFault)? - faults;
    let left = before - memory.nodes(map.all())?.on(node.id);
    let written = memory.verify(map.pages(page, 1), &AFTER, LIMIT)?.pages_wrong;
    let others = memory.verify(map.pages(page + 1, map.page_count() - page - 1), &BEFORE, LIMIT)?.pages_wrong;
    Ok(json!({ "faults": faults, "pages that left": left, "pages wrong": written + others }))
}

/// Anonymous huge pages of a program.
fn huge(lab: &Lab, memory: &Memory) -> Result<String> {
    Ok(lab.sh(&format!("grep -h AnonHugePages /proc/{}/smaps_rollup", memory.program().pid()))?.trim().to_owned())
}

/// Whether a mapping is one huge page.
fn huge_at(lab: &Lab, memory: &Memory, map: &Mapping) -> Result<bool> {
    let smaps = lab.guest.read_text(&format!("/proc/{}/smaps", memory.program().pid()))?;
    let mine = smaps.split_once(&format!("{:x}-", map.address)).context("smaps does not have the mapping")?.1;
    let kib = mine.lines().find_map(|line| line.strip_prefix("AnonHugePages:")?.trim().strip_suffix(" kB"));
    Ok(kib.context("smaps has no AnonHugePages")?.trim().parse::<u64>()? * 1024 >= HUGE)
}
