//! Real data survives eviction, whatever the codec: the same data on three devices, each with its own.

use cxl_cram_lab::prelude::*;

const USUAL: DeviceShape = DeviceShape { cache: 8 << 20, ..DeviceShape::USUAL };

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "codecs",
    story: "48 MiB of real data on each of three devices, with lz4, zstd:1 and zstd:3, verified twice while they evict",
    devices: &[
        DeviceShape { codec: Codec::Lz4, ..USUAL },
        DeviceShape { codec: Codec::Zstd(1), ..USUAL },
        DeviceShape { codec: Codec::Zstd(3), ..USUAL },
    ],
    machine: MachineShape { corpus: true, ..MachineShape::USUAL },
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

/// Bytes of each half of the corpus.
const HALF: u64 = 24 << 20;
const BYTES: u64 = 2 * HALF;
const LIMIT: Duration = Duration::from_secs(60);

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("a region on each");
    // Linux accepts regions below one host bridge only in the order of their addresses.
    let mut order: Vec<usize> = (0..lab.devices.len()).collect();
    order.sort_by_key(|&index| lab.bars[index].address);
    let mut nodes = vec![0; order.len()];
    for index in order {
        nodes[index] = lab.create_region_on(index)?.node;
        lab.online_node(nodes[index])?;
    }

    let mut taken = Vec::new();
    for (index, (shape, node)) in SCENARIO.devices.iter().zip(nodes).enumerate() {
        lab.step(&format!("{}: 48 MiB of real data", shape.codec));
        let before = lab.devices[index].status()?.used;
        let mut memory = lab.guest.memory()?;
        let halves = corpus_halves(&mut memory, node, HALF)?;
        let mut verdict = Verdict::default();
        for _ in 0..2 {
            for (data, map) in &halves {
                verdict.add(memory.verify(map.all(), data, LIMIT)?);
            }
        }
        lab.fact(&format!("{}: pages wrong or poisoned", shape.codec), verdict.pages_wrong + verdict.pages_poisoned);

        let status = lab.devices[index].status()?;
        // Written once and read twice, through a window that holds a sixth of the data.
        lab.fact(&format!("{}: evicted at least twice", shape.codec), status.resident.evicted * 4096 > 2 * BYTES);
        let stored = status.used - before;
        lab.figure(
            &format!("{}: effective ratio", shape.codec),
            format!("{:.2}", BYTES as f64 / (stored + status.metadata) as f64),
        );
        taken.push(stored);
    }
    lab.fact("each takes less media than the one before", taken.is_sorted_by(|one, next| one > next));
    Ok(())
}
