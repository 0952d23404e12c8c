//! Pages go to the device and come back unchanged, by every system call that moves them.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "migration",
    story: "move_pages, migrate_pages and mbind move pages to the node and back, none changes; what cannot be is refused",
    needs: &[Need::Config("MIGRATION"), Need::Path(WEIGHTS)],
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 16 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 21, ratio: 3.0 };
/// Each node's share of a weighted interleave.
const WEIGHTS: &str = "/sys/kernel/mm/mempolicy/weighted_interleave";

fn run(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(0, BYTES, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let before = lab.device().status()?.used;

    lab.step("move_pages, there and back");
    lab.fact("move_pages to node 1", memory.move_pages(map.all(), &[1], LIMIT)?.nodes);
    let there = lab.device().status()?.used;
    lab.figure("media taken by 16 MiB", format_bytes(there - before));
    lab.fact("the device holds them, compressed", (BYTES / 4..BYTES / 2).contains(&(there - before)));
    arrived(lab, &mut memory, &map, "after move_pages to node 1")?;
    lab.fact("move_pages back", memory.move_pages(map.all(), &[0], LIMIT)?.nodes);
    lab.fact("move_pages, every other page", memory.move_pages(map.all(), &[0, 1], LIMIT)?.nodes);
    arrived(lab, &mut memory, &map, "after move_pages page by page")?;

    lab.step("mbind moves pages that do not follow the policy");
    memory.bind(map.all(), Policy::Bind, &[1], LIMIT)?;
    lab.fact("MPOL_BIND to node 1", memory.nodes(map.all())?.nodes);
    memory.bind(map.all(), Policy::Preferred, &[0], LIMIT)?;
    lab.fact("MPOL_PREFERRED node 0", memory.nodes(map.all())?.nodes);
    memory.bind(map.all(), Policy::Interleave, &[0, 1], LIMIT)?;
    lab.fact("MPOL_INTERLEAVE leaves what is on its nodes", memory.nodes(map.all())?.nodes);
    arrived(lab, &mut memory, &map, "after mbind")?;

    lab.step("new pages follow the policy");
    lab.fact("MPOL_INTERLEAVE", fresh(&mut memory, Policy::Interleave)?);
    lab.sh(&format!("echo 3 > {WEIGHTS}/node0 && echo 1 > {WEIGHTS}/node1"))?;
    lab.fact("MPOL_WEIGHTED_INTERLEAVE, 3 to 1", fresh(&mut memory, Policy::WeightedInterleave)?);

    lab.step("migrate_pages moves a whole process, whatever its policies");
    let mut process = lab.guest.memory()?;
    let whole = process.map_anywhere(BYTES)?;
    process.fill(whole.all(), &DATA, LIMIT)?;
    process.migrate(&[0], &[1], LIMIT)?;
    lab.fact("migrate_pages to node 1", process.nodes(whole.all())?.nodes);
    arrived(lab, &mut process, &whole, "after migrate_pages to node 1")?;
    process.migrate(&[1], &[0], LIMIT)?;
    lab.fact("migrate_pages back", process.nodes(whole.all())?.nodes);
    arrived(lab, &mut process, &whole, "after migrate_pages back")?;

    lab.step("impossible requests are refused");
    lab.fact("move_pages to a node that does not exist", refused(memory.move_pages(map.all(), &[9], LIMIT))?);
    lab.fact("mbind to a node that does not exist", refused(memory.bind(map.all(), Policy::Bind, &[9], LIMIT))?);
    lab.fact("migrate_pages to a node that does not exist", refused(memory.migrate(&[0], &[9], LIMIT))?);
    memory.bind(map.all(), Policy::Default, &[], LIMIT)?;
    memory.migrate(&[1], &[0], LIMIT)?;
    lab.offline_node(1)?;
    lab.fact("move_pages to an offline node", refused(memory.move_pages(map.all(), &[1], LIMIT))?);
    lab.fact("mbind to an offline node", refused(memory.bind(map.all(), Policy::Bind, &[1], LIMIT))?);
    arrived(lab, &mut memory, &map, "at the end")
}

/// Records that every page is as it was filled.
fn arrived(lab: &mut Lab, memory: &mut Memory, map: &Mapping, when: &str) -> Result<()> {
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact(&format!("pages wrong or poisoned {when}"), verdict.pages_wrong + verdict.pages_poisoned);
    Ok(())
}

/// The nodes of a new mapping's pages under a policy of both nodes.
fn fresh(memory: &mut Memory, policy: Policy) -> Result<Value> {
    let map = memory.map_anywhere(BYTES)?;
    memory.bind(map.all(), policy, &[0, 1], LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let nodes = memory.nodes(map.all())?.nodes;
    memory.free(map)?;
    Ok(json!(nodes))
}

/// The kernel's reason for a refusal.
fn refused<T>(result: std::result::Result<T, GuestError>) -> Result<String> {
    match result {
        Err(GuestError::Failed { failure, .. }) => Ok(failure.message),
        Err(other) => Err(other.into()),
        Ok(_) => bail!("the call succeeded, but must fail"),
    }
}
