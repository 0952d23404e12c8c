//! Everything at once: processes and threads write, the guest's kernel migrates, the device evicts.

use std::thread;

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "concurrent",
    story: "three processes of three threads write and verify pages that migrate back and forth while the device evicts",
    needs: &[Need::Config("MIGRATION")],
    devices: &[DeviceShape { cache: 8 << 20, ..DeviceShape::USUAL }],
    run,
    ..Scenario::USUAL
};

const PROCESSES: usize = 3;
const BYTES: u64 = 8 << 20;
const ROUNDS: u32 = 6;
const LIMIT: Duration = Duration::from_secs(60);

fn run(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        let mut memory = lab.guest.memory()?;
        let map = memory.map_on(1, BYTES, LIMIT)?;
        processes.push((memory, map));
    }

    lab.step("write, verify, migrate and evict at once");
    // The first process's pages stay on the node; the other processes' pages go to node 0 and come back.
    let churned: Vec<Churned> = thread::scope(|scope| {
        let one = |(index, (memory, map)): (usize, &mut (Memory, Mapping))| {
            let nodes: &[u32] = if index == 0 { &[] } else { &[0, 1] };
            memory.churn(map.all(), 3, ROUNDS, nodes, LIMIT)
        };
        let running: Vec<_> =
            processes.iter_mut().enumerate().map(|process| scope.spawn(move || one(process))).collect();
        let ended =
            running.into_iter().map(|process| Ok(process.join().map_err(|_| anyhow!("a thread panicked"))??));
        ended.collect::<Result<_>>()
    })?;

    let sum = |count: fn(&Churned) -> u64| churned.iter().map(count).sum::<u64>();
    lab.fact("pages compared", sum(|churned| churned.verdict.pages));
    lab.fact("pages wrong", sum(|churned| churned.verdict.pages_wrong));
    lab.fact("pages poisoned", sum(|churned| churned.verdict.pages_poisoned));
    lab.figure("pages moved between the nodes", sum(|churned| churned.moved));
    lab.fact("each of the two that migrate did", churned[1..].iter().all(|churned| churned.moved >= BYTES / 4096));
    let status = lab.device().status()?;
    lab.figure("pages evicted", status.resident.evicted);
    lab.fact("the device evicted more than it can hold", status.resident.evicted * 4096 > 8 << 20);
    lab.fact("poisoned bytes", status.poisoned);
    Ok(())
}
