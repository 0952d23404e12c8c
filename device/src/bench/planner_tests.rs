//! The planner by its properties.

use clap::Parser;

use super::*;
use crate::store::Codec;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    bench: BenchArgs,
}

fn args(flags: &str) -> BenchArgs {
    Line::parse_from(std::iter::once("bench").chain(flags.split_ascii_whitespace())).bench
}

/// Data that is alike for a while, then different: phases of 40 MiB.
fn phases(count: u64) -> Vec<Run> {
    let mut draw = Draw::new(7);
    (0..count)
        .map(|number| {
            let phase = [0.2, 0.5, 0.35, 0.9][(number / 40 % 4) as usize];
            Run { number, footprint: phase + draw.below(1000) as f64 / 10_000.0 }
        })
        .collect()
}

fn planned(flags: &str, runs: &[Run]) -> Plan {
    plan(&args(flags), Config { codec: Codec::Lz4, block_size: 4096 }, runs, 1.0, false).unwrap()
}

#[test]
fn the_normal_tail_is_the_textbook_one() {
    for (odds, z) in
        [(0.5, 0.0), (0.158_655_253_9, 1.0), (1e-3, 3.090_232_306), (1e-6, 4.753_424_309), (1e-9, 5.997_807_015)]
    {
        assert!((upper_normal(odds) - z).abs() < 1e-6, "{odds}: {}", upper_normal(odds));
    }
}

#[test]
fn more_physical_gives_more_capacity() {
    let runs = phases(1000);
    let capacities: Vec<u64> = ["1G", "2G", "64G", "256G", "4T"]
        .map(|size| planned(&format!("--physical {size} --write-rate 1"), &runs).capacity)
        .into();
    assert!(capacities.is_sorted() && capacities[0] < capacities[4], "{capacities:?}");
}

#[test]
fn smaller_odds_never_promise_more() {
    let runs = phases(1000);
    let overcommits: Vec<f64> = ["0.5", "0.1", "1e-2", "1.1e-3", "1e-3", "0.9e-3", "1e-4", "1e-6", "1e-9", "1e-12"]
        .map(|odds| planned(&format!("--odds {odds}"), &runs).overcommit)
        .into();
    assert!(overcommits.is_sorted_by(|a, b| a >= b) && overcommits[0] > overcommits[9], "{overcommits:?}");
}

#[test]
fn the_curve_ascends_and_meets_the_plan() {
    for odds in ["0.1", "1e-3", "1e-6"] {
        let plan = planned(&format!("--odds {odds}"), &phases(1000));
        assert!(plan.curve.is_sorted_by(|a, b| a.overcommit < b.overcommit), "{:?}", plan.curve);
        assert!(plan.curve.is_sorted_by(|a, b| a.probability_of_overflow <= b.probability_of_overflow));
        for point in &plan.curve {
            assert!((0.0..=1.0).contains(&point.probability_of_overflow));
            if point.overcommit <= plan.overcommit {
                assert!(point.probability_of_overflow <= plan.odds * 1.001, "{point:?} against {}", plan.overcommit);
            } else if point.overcommit > plan.overcommit * 1.001 {
                assert!(point.probability_of_overflow >= plan.odds * 0.9, "{point:?} against {}", plan.overcommit);
            }
        }
    }
}

#[test]
fn data_that_is_alike_in_one_place_needs_more_media_than_the_same_data_shuffled() {
    let runs = phases(1000);
    let mut shuffled = runs.clone();
    let mut draw = Draw::new(3);
    for at in (1..shuffled.len()).rev() {
        shuffled.swap(at, draw.below(at as u64 + 1) as usize);
    }
    let (in_order, mixed) = (planned("", &runs), planned("", &shuffled));
    assert!(in_order.window_deviation > 2.0 * mixed.window_deviation);
    assert!(in_order.overcommit < mixed.overcommit);
}

#[test]
fn larger_windows_average_more_out() {
    let runs = phases(4000);
    let overcommits: Vec<f64> =
        ["16", "256", "2048"].map(|window| planned(&format!("--window {window}"), &runs).overcommit).into();
    assert!(overcommits.is_sorted() && overcommits[0] < overcommits[2], "{overcommits:?}");
}

#[test]
fn data_without_variance_is_promised_what_it_takes() {
    let runs: Vec<Run> = (0..2000).map(|number| Run { number, footprint: 0.25 }).collect();
    let plan = planned("", &runs);
    assert!((plan.overcommit - 4.0).abs() < 1e-6, "{}", plan.overcommit);
    assert!(plan.curve.first().unwrap().probability_of_overflow == 0.0);
    assert!(plan.curve.last().unwrap().probability_of_overflow > 0.0);
}

#[test]
fn nothing_is_promised_that_raw_blocks_would_overflow_at_any_odds() {
    let runs: Vec<Run> = (0..300).map(|number| Run { number, footprint: 1.0 + 12.0 / 4096.0 }).collect();
    let plan = planned("--odds 1e-12", &runs);
    assert!(plan.overcommit < 1.0 && plan.overcommit > 0.99, "{}", plan.overcommit);
}

#[test]
fn watermarks_follow_the_rates() {
    let runs = phases(1000);
    let plan = planned("--write-rate 100 --reaction 2000 --reclaim-rate 50 --hysteresis 4000", &runs);
    let low = (200.0 * MIB * (4096.0 + 12.0) / 4096.0) as u64;
    assert_eq!(plan.low_watermark, low);
    assert_eq!(plan.high_watermark, low + (200.0 * MIB * plan.mean_footprint) as u64);
    let faster = planned("--write-rate 200 --reaction 2000 --reclaim-rate 50 --hysteresis 4000", &runs);
    assert!(faster.low_watermark > plan.low_watermark && faster.capacity < plan.capacity);
}

#[test]
fn a_watermark_larger_than_the_media_promises_nothing_and_says_so() {
    let plan = planned("--physical 1M --write-rate 1000", &phases(1000));
    assert_eq!((plan.capacity, plan.low_watermark, plan.high_watermark), (0, 1 << 20, 1 << 20));
    assert!(plan.assumptions.iter().any(|line| line.starts_with("Impossible")));
}

#[test]
fn a_plan_from_little_data_is_called_weak() {
    assert!(planned("", &phases(10)).assumptions.iter().any(|line| line.starts_with("Weak")));
    assert!(!planned("", &phases(4096)).assumptions.iter().any(|line| line.starts_with("Weak")));
}

#[test]
fn a_plan_from_a_sample_is_called_optimistic() {
    let config = Config { codec: Codec::Lz4, block_size: 4096 };
    let doubts = [true, false].map(|sampled| {
        let plan = plan(&args(""), config, &phases(4096), 1.0, sampled).unwrap();
        plan.assumptions.iter().filter(|line| line.starts_with("Optimistic")).count()
    });
    assert_eq!(doubts, [1, 0]);
}
