//! Real data on the node survives while the device compresses and evicts it, and takes far less than its size.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "integrity",
    story: "256 MiB of ELF files and source text on the node, verified three times while the device evicts",
    machine: MachineShape { corpus: true, ..MachineShape::USUAL },
    limit: Duration::from_secs(180),
    run,
    ..Scenario::USUAL
};

/// The bytes of the corpus that are written to the node.
const BYTES: u64 = 256 << 20;
const LIMIT: Duration = Duration::from_secs(60);

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("put the device's memory online");
    lab.create_region()?;
    lab.online_node(1)?;
    let before = lab.device().status()?;

    lab.step("write 256 MiB of real data to node 1");
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(1, BYTES, LIMIT)?;
    let corpus = Pattern::File { path: "/dev/vda".into(), offset: 0 };
    memory.fill(map.all(), &corpus, LIMIT)?;
    lab.fact("pages by node", memory.nodes(map.all())?.nodes);

    for round in 1..=3 {
        lab.step(&format!("verify, round {round}"));
        let verdict = memory.verify(map.all(), &corpus, LIMIT)?;
        lab.fact(
            &format!("round {round}"),
            json!({
                "pages": verdict.pages, "wrong": verdict.pages_wrong, "poisoned": verdict.pages_poisoned,
            }),
        );
    }

    lab.step("what it takes on the host");
    let after = lab.device().status()?;
    let stored = after.used - before.used;
    let held = after.used + after.metadata + after.resident.bytes;
    lab.figure("written by the guest", format_bytes(BYTES));
    lab.figure("media taken", format_bytes(stored));
    lab.figure("metadata", format_bytes(after.metadata));
    lab.figure("decompressed in the window", format_bytes(after.resident.bytes));
    lab.figure("effective ratio", format!("{:.2}", BYTES as f64 / (stored + after.metadata) as f64));
    lab.figure("pages faulted in / evicted", format!("{} / {}", after.resident.faults, after.resident.evicted));
    lab.figure("device process resident", format_bytes(lab.device().process_resident()?));
    ensure!(held < BYTES * 3 / 4, "the host holds {} for {} of data", format_bytes(held), format_bytes(BYTES));
    ensure!(after.resident.evicted * 4096 > BYTES, "the device hardly evicted: {} pages", after.resident.evicted);
    lab.fact("poisoned bytes", after.poisoned);

    lab.step("hot accesses on node 1, compared with node 0");
    drop(memory);
    let cost = lab.json("cxl-cram-guest hot-cost --node 1 --bytes 8388608 --rounds 20")?;
    lab.figure("hot fill, node 1 / node 0", ratio(&cost, "fill_ns")?);
    lab.figure("hot verify, node 1 / node 0", ratio(&cost, "verify_ns")?);
    Ok(())
}

/// Node 1's cost per page relative to node 0's, with both in nanoseconds.
fn ratio(cost: &Value, key: &str) -> Result<String> {
    let ns = |node: usize| cost[node][key].as_f64().with_context(|| format!("hot-cost did not print {key}"));
    let (near, far) = (ns(0)?, ns(1)?);
    Ok(format!("{:.2} ({far:.0} / {near:.0} ns a page)", far / near))
}
