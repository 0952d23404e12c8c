//! Poison in a page on the tier: a program that reads it learns which page it was, and no other page is harmed.

use cxl_cram_lab::prelude::*;
use cxl_cram_lab::wire::memory::Range;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_poison",
    story: "poison on the tier is read: SIGBUS with the page's address; the page is lost for good, all else is read and promoted",
    needs: &[Need::Cram, Need::Config("MEMORY_FAILURE"), Need::Config("X86_MCE_INTEL")],
    // No read-ahead: only the touched page is loaded.
    devices: &[DeviceShape {
        capacity: 256 << 20,
        physical: 128 << 20,
        cache: 16 << 20,
        more: &["--readahead", "4096"],
        ..DeviceShape::USUAL
    }],
    machine: MachineShape { machine_checks: true, ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const PAGES: u64 = 64;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Random { seed: 92 };

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    let mut trace = lab.guest.trace("poison", &[cram.event(CramEvent::Poison)])?;
    let (mut victim, mut bystander) = (lab.guest.memory()?, lab.guest.memory()?);
    victim.guard(false)?;
    let mut maps = Vec::new();
    for memory in [&mut victim, &mut bystander] {
        let map = memory.map_anywhere(PAGES * 4096)?;
        memory.fill(map.all(), &DATA, LIMIT)?;
        memory.move_pages(map.all(), &[cram.node], LIMIT)?;
        maps.push(map);
    }
    let [map, other] = &maps[..] else { bail!("two mappings were made") };

    lab.step("a line of a page on the tier is poisoned, and read");
    let frame = victim.physical(map, 5, 1)?[0].context("the page is not present")?;
    lab.device().execute(control::InjectPoison { start: lab.dpa(0, frame)? + 2048, length: 64 })?;
    victim.touch(map.pages(5, 1), false, 1, LIMIT)?;
    cram.wait(lab, "CRAM to count the page as poisoned", |counts| counts.poisoned > 0)?;
    victim.touch(map.pages(5, 1), false, 1, LIMIT)?;
    let faults: Vec<Value> = victim
        .faults()?
        .into_iter()
        .map(|fault| {
            json!({ "action": fault.action, "page": fault.address.wrapping_sub(map.address) / 4096, "low bits": fault.low_bits })
        })
        .collect();
    lab.fact("signals", faults);
    lab.fact("pages that CRAM has lost", cram.counts(lab)?.poisoned);
    lab.fact("the trace tells of it", lab.event(&mut trace, "cram_poison", &["nid"])?);

    lab.step("all other pages");
    let rest = [map.pages(0, 5), map.pages(6, PAGES - 6)];
    let mut wrong = wrong_pages(&mut bystander, &[other.all()])?;
    wrong += wrong_pages(&mut victim, &rest)?;
    lab.fact("pages wrong, read and then promoted", wrong);
    lab.fact("pages of theirs on the tier then", bystander.nodes(other.all())?.on(cram.node));

    lab.step("the page is gone for good");
    drop((victim, bystander));
    cram.settled(lab)?;
    let mut next = lab.guest.memory()?;
    let map = next.map_anywhere(1024 * 4096)?;
    next.fill(map.all(), &DATA, LIMIT)?;
    next.move_pages(map.all(), &[cram.node], LIMIT)?;
    let frames = next.physical(&map, 0, 1024)?;
    lab.fact("pages of the next on the tier", next.nodes(map.all())?.on(cram.node));
    lab.fact("the lost page among them", frames.contains(&Some(frame)));
    Ok(())
}

/// Reads pages on the tier, writes them so that they leave it, reads them again, and returns how many were wrong.
fn wrong_pages(memory: &mut Memory, ranges: &[Range]) -> Result<u64> {
    let mut all = Verdict::default();
    for &range in ranges {
        all.add(memory.verify(range, &DATA, LIMIT)?);
        memory.touch(range, true, 1, LIMIT)?;
        all.add(memory.verify(range, &DATA, LIMIT)?);
    }
    Ok(all.pages_wrong + all.pages_poisoned)
}
