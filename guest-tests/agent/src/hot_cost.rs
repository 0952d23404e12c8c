//! `hot-cost`: the cost of hot memory on a node, compared with node 0, in one run.
//!
//! An uncounted first round warms all caches.

use std::hint::black_box;
use std::io;
use std::time::Instant;

use cxl_cram_wire::pattern::PAGE;
use serde::{Deserialize, Serialize};

use crate::memory::region::Region;

/// Nanoseconds per page on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The node.
    pub node: u32,
    /// Pages in the mapping.
    pub pages: usize,
    /// Storing a word throughout: the median of all rounds.
    pub fill_ns: f64,
    /// Comparing with a word throughout: the median of all rounds.
    pub verify_ns: f64,
    /// Storing, for each round.
    pub fill_rounds_ns: Vec<f64>,
    /// Comparing, for each round.
    pub verify_rounds_ns: Vec<f64>,
    /// Words that differed from what was stored.
    pub wrong_words: u64,
}

/// Measures the nodes in turn, round by round, so that a disturbance affects all of them.
///
/// # Errors
/// A node has too little memory.
pub fn measure(nodes: &[u32], bytes: usize, rounds: u32) -> io::Result<Vec<Cost>> {
    let pages = bytes.div_ceil(PAGE);
    let mut regions = nodes.iter().map(|&node| Region::on_node(pages, node)).collect::<io::Result<Vec<_>>>()?;
    let mut costs: Vec<Cost> = nodes
        .iter()
        .map(|&node| Cost {
            node,
            pages,
            fill_ns: 0.0,
            verify_ns: 0.0,
            fill_rounds_ns: Vec::new(),
            verify_rounds_ns: Vec::new(),
            wrong_words: 0,
        })
        .collect();
    for round in 0..=rounds {
        for (region, cost) in regions.iter_mut().zip(&mut costs) {
            let word = u64::from(round) << 32 | u64::from(cost.node);
            let fill = Instant::now();
            (0..pages).for_each(|page| fill_page(region.page(page), word));
            let fill = fill.elapsed();
            let verify = Instant::now();
            let wrong: u64 = (0..pages).map(|page| wrong_words(region.page(page), word)).sum();
            let verify = verify.elapsed();
            cost.wrong_words += wrong;
            if round > 0 {
                cost.fill_rounds_ns.push(fill.as_nanos() as f64 / pages as f64);
                cost.verify_rounds_ns.push(verify.as_nanos() as f64 / pages as f64);
            }
        }
    }
    for cost in &mut costs {
        cost.fill_ns = median(&cost.fill_rounds_ns);
        cost.verify_ns = median(&cost.verify_rounds_ns);
    }
    Ok(costs)
}

fn fill_page(page: &mut [u8; PAGE], word: u64) {
    let (words, _) = page.as_chunks_mut::<8>();
    words.fill(word.to_le_bytes());
    black_box(page);
}

fn wrong_words(page: &[u8; PAGE], word: u64) -> u64 {
    let (words, _) = black_box(page).as_chunks::<8>();
    words.iter().filter(|found| **found != word.to_le_bytes()).count() as u64
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[9.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_page_that_is_not_as_filled_is_counted() {
        let mut page = [0; PAGE];
        fill_page(&mut page, 0x1122);
        assert_eq!(wrong_words(&page, 0x1122), 0);
        page[9] = 0;
        page[17] = 1;
        assert_eq!(wrong_words(&page, 0x1122), 2);
    }
}
