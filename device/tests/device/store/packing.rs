//! How much of the media holds payload, through a life of fill, overwrite, change of workload and overwrite again.

use cxl_cram_device::store::{Block, Codec};

use super::data::{Random, noisy, store};

/// What the guest stores: blocks whose random part, and with it the payload, is `mean` bytes give or take `spread`,
/// or in `sparse` of 100 blocks a sixth of that.
#[derive(Clone, Copy)]
struct Workload {
    mean: u64,
    spread: u64,
    sparse: u64,
}

/// Pages of programs and text: payloads around half a block.
const PROGRAMS: Workload = Workload { mean: 2100, spread: 1900, sparse: 10 };
/// Heaps: smaller payloads, more of them tiny.
const HEAPS: Workload = Workload { mean: 1700, spread: 1300, sparse: 20 };

impl Workload {
    fn block(&self, random: &mut Random) -> Block {
        // The sum of two throws: sizes crowd around the mean.
        let noise = self.mean - self.spread + random.below(self.spread) + random.below(self.spread);
        let noise = if random.below(100) < self.sparse { noise / 6 } else { noise } as usize;
        noisy(random.next(), noise)
    }
}

/// What one phase came to.
#[derive(Clone, Copy, Debug)]
struct Phase {
    name: &'static str,
    /// Payload / (media + metadata).
    packing: f64,
    /// Payload / media.
    media_packing: f64,
    /// Bytes moved in this phase / payload bytes written in it.
    moved: f64,
}

/// Fill, 4x overwrite, switch, 4x overwrite on a store of `blocks` blocks; and the bytes moved by each byte written.
fn live(blocks: u64, codec: Codec) -> (Vec<Phase>, f64) {
    let store = store(blocks, blocks, codec);
    let mut random = Random::new(0x5eed);
    let mut phases = Vec::new();
    let mut lens = vec![0; blocks as usize];
    let (mut all_written, mut all_moved) = (0, 0);
    for (name, workload, passes, in_order) in [
        ("fill", PROGRAMS, 1, true),
        ("overwrite", PROGRAMS, 4, false),
        ("switch", HEAPS, 1, true),
        ("overwrite again", HEAPS, 4, false),
    ] {
        let (mut written, moved) = (0, store.moved());
        for at in 0..blocks * passes {
            let at = if in_order { at } else { random.below(blocks) };
            let data = workload.block(&mut random);
            let before = store.usage().data;
            store.write(at, &data).unwrap();
            let len = &mut lens[at as usize];
            *len = store.usage().data - (before - *len);
            written += *len;
        }
        let (usage, moved) = (store.usage(), store.moved() - moved);
        assert_eq!(usage, store.recount());
        all_written += written;
        all_moved += moved;
        phases.push(Phase {
            name,
            packing: usage.data as f64 / (usage.used + usage.metadata) as f64,
            media_packing: usage.data as f64 / usage.used as f64,
            moved: moved as f64 / written as f64,
        });
    }
    (phases, all_moved as f64 / all_written as f64)
}

#[test]
fn slabs_stay_packed_through_churn_and_a_change_of_workload() {
    let (phases, moved) = live(16_384, Codec::Lz4);
    println!("{phases:#?} moved {moved:.3}");
    for phase in phases {
        assert!(phase.packing >= 0.95, "{phase:?}");
    }
    assert!(moved <= 0.2, "{moved} bytes moved for each byte written");
}

/// The figures of docs/store.md: run it with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "65,536 blocks: takes a while without optimisation"]
fn slabs_stay_packed_at_256_mib() {
    for codec in [Codec::Lz4, Codec::Zstd(1)] {
        let (phases, moved) = live(65_536, codec);
        println!("{codec}: {moved:.3} bytes moved for each byte written");
        for phase in phases {
            println!(
                "{:>16} {:5.1} % of media, {:5.1} % with metadata, moved {:.3}",
                phase.name,
                phase.media_packing * 100.0,
                phase.packing * 100.0,
                phase.moved
            );
            assert!(phase.packing >= 0.97, "{phase:?}");
        }
        assert!(moved <= 0.2, "{moved}");
    }
}
