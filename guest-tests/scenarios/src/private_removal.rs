//! Memory under a private node's pages is taken offline or poisoned. The kernel acts only if the owner asks for the service.

use cxl_cram_lab::prelude::*;
use cxl_cram_lab::wire::memory::Advice;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "private_removal",
    story: "offlining and memory failure of a private node with pages on it: refused without the service, survived with it",
    needs: &[Need::PrivateNodes, Need::Config("MEMORY_FAILURE"), Need::Config("TRANSPARENT_HUGEPAGE")],
    // No read-ahead: only the touched page is loaded.
    devices: &[DeviceShape { more: &["--readahead", "4096"], ..DeviceShape::USUAL }],
    machine: MachineShape { machine_checks: true, ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const LIMIT: Duration = Duration::from_secs(30);
const BYTES: u64 = 2 << 20;
const PAGES: u64 = BYTES / 4096;
const DATA: Pattern = Pattern::Random { seed: 61 };

fn run(lab: &mut Lab) -> Result<()> {
    let region = lab.create_region_of(0, "-s 256M")?;
    let (private, range) = (lab.private_nodes()?, lab.take_range(&region)?);
    let node = region.node;
    let claim = |capabilities| Claim { node, owner: 0, capabilities };

    for (what, capabilities) in [("without", &[][..]), ("with", &[Capability::Hotunplug])] {
        lab.step(&format!("offlined with pages on it, {what} hot-unplug"));
        private.add(lab, &claim(capabilities), &range)?;
        let mut memory = lab.guest.memory()?;
        let maps = [memory.map_anywhere(BYTES)?, memory.map_huge(BYTES, LIMIT)?];
        for map in &maps {
            memory.fill(map.all(), &DATA, LIMIT)?;
            private.place(&mut memory, node, map.all())?;
        }
        let on = |memory: &mut Memory| -> Result<Vec<u64>> {
            maps.iter().map(|map| Ok(memory.nodes(map.all())?.on(node))).collect()
        };
        let placed = on(&mut memory)?;
        let removed = errno(private.remove(lab, node, &range))?;
        let left = on(&mut memory)?;
        let wrong = maps.iter().map(|map| Ok(memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong));
        let wrong = wrong.sum::<Result<u64>>()?;
        lab.fact(
            &format!("remove, {what} hot-unplug"),
            json!({ "remove": removed, "pages": PAGES * 2, "on the node before": placed, "after": left,
                "pages wrong": wrong }),
        );
        maps.into_iter().try_for_each(|map| memory.free(map))?;
        if removed != "done" {
            lab.fact(&format!("remove, {what} hot-unplug, pages freed"), errno(private.remove(lab, node, &range))?);
        }
        private.unregister(lab, node)?;
    }

    for (what, capabilities) in [("without", &[][..]), ("with", &[Capability::MemoryFailure])] {
        lab.step(&format!("memory failure, {what} the service"));
        private.add(lab, &claim(capabilities), &range)?;
        let mut memory = lab.guest.memory()?;
        memory.guard(false)?;
        let map = memory.map_anywhere(BYTES)?;
        memory.fill(map.all(), &DATA, LIMIT)?;
        private.place(&mut memory, node, map.all())?;

        let soft = errno(memory.advise(map.pages(3, 1), Advice::SoftOffline, LIMIT))?;
        let hard = errno(memory.advise(map.pages(5, 1), Advice::HwPoison, LIMIT))?;
        memory.touch(map.pages(5, 1), false, 1, LIMIT)?;
        let injected = faults(&mut memory, &map)?;
        let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
        lab.fact(
            &format!("madvise, {what} memory failure"),
            json!({
                "MADV_SOFT_OFFLINE": soft, "MADV_HWPOISON": hard, "signals": injected,
                "owner told": private.notice_count(lab, node, Notice::MemoryFailure)?, "on the node": memory.nodes(map.all())?.on(node),
                "pages lost": verdict.pages_wrong,
            }),
        );

        lab.step(&format!("the device's poison is loaded, {what} the service"));
        let before = private.notice_count(lab, node, Notice::MemoryFailure)?;
        let signals = memory.faults()?.len();
        let frame = memory.physical(&map, 7, 1)?[0].context("the page is not present")?;
        lab.device().execute(control::InjectPoison { start: lab.dpa(0, frame)?, length: 64 })?;
        memory.touch(map.pages(7, 1), false, 1, LIMIT)?;
        let met = format!("dmesg | grep -q 'Memory failure: {:#x}: '", frame / 4096);
        lab.wait("the machine check to be handled", |lab| {
            let handled = capabilities.is_empty() || private.notice_count(lab, node, Notice::MemoryFailure)? > before;
            Ok(handled && lab.holds(&met)?)
        })?;
        let verdict = memory.verify(map.pages(7, 1), &DATA, LIMIT)?;
        lab.fact(
            &format!("machine check, {what} memory failure"),
            json!({
                "signals": faults(&mut memory, &map)?.split_off(signals),
                "owner told": private.notice_count(lab, node, Notice::MemoryFailure)? - before,
                "still reads as poison": verdict.pages_poisoned == 1,
            }),
        );
        // Unmap explicitly rather than kill the program: a node without hot-unplug cannot be removed before its pages are gone.
        memory.free(map)?;
        private.remove(lab, node, &range)?;
        private.unregister(lab, node)?;
    }
    Ok(())
}

/// Each SIGBUS of a program: the action required, and which page of the mapping the address is in.
fn faults(memory: &mut Memory, map: &Mapping) -> Result<Vec<Value>> {
    let fault =
        |fault: Fault| json!({ "action": fault.action, "page": (fault.address.wrapping_sub(map.address)) / 4096 });
    Ok(memory.faults()?.into_iter().map(fault).collect())
}
