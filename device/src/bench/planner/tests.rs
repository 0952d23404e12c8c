//! The planner by its properties.

use clap::Parser;

use super::*;
use crate::{bench::BenchArgs, store::Codec};

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
            let phase = [0.1, 0.25, 0.18, 0.45][(number / 40 % 4) as usize];
            Run { number, footprint: phase + draw.below(1000) as f64 / 20_000.0 }
        })
        .collect()
}

/// All of these runs, compressed by lz4 in blocks of 4 KiB.
fn measured(runs: &[Run]) -> Measured<'_> {
    let config = Config { codec: Codec::Lz4, block_size: 4096 };
    Measured { config, runs, bytes: (runs.len() as u64) << 20, correction: 1.0, sampled: false }
}

fn attempt(flags: &str, runs: &[Run]) -> Result<Plan, NoPlan> {
    let args = args(flags);
    plan(&args.goal(), measured(runs), args.seed)
}

fn planned(flags: &str, runs: &[Run]) -> Plan {
    attempt(flags, runs).unwrap()
}

/// Runs that all take this share of their bytes.
fn alike(count: u64, footprint: f64) -> Vec<Run> {
    (0..count).map(|number| Run { number, footprint }).collect()
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
    let capacities: Vec<u64> = ["1G", "2G", "64G", "256G", "1T"]
        .map(|size| planned(&format!("--physical {size} --write-rate 1 --reclaim-rate 1"), &runs).capacity)
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
    let plan = planned("", &alike(2000, 0.25));
    assert!((plan.overcommit - 4.0).abs() < 1e-6, "{}", plan.overcommit);
    assert!(plan.curve.first().unwrap().probability_of_overflow == 0.0);
    assert!(plan.curve.last().unwrap().probability_of_overflow > 0.0);
}

#[test]
fn data_that_does_not_compress_gives_no_plan() {
    let error = attempt("--odds 1e-12", &alike(300, 1.0 + 12.0 / 4096.0)).unwrap_err();
    assert!(matches!(error, NoPlan::NoGain { overcommit, .. } if overcommit < 1.0 && overcommit > 0.99), "{error}");
}

#[test]
fn watermarks_follow_the_rates() {
    let runs = phases(1000);
    let plan = planned("--write-rate 100 --reaction 2000 --reclaim-rate 50 --hysteresis 4000", &runs);
    let blocks = |bytes: f64| (bytes / 4096.0).ceil() as u64 * 4096;
    let low = blocks(200.0 * MIB * (4096.0 + 12.0) / 4096.0);
    assert_eq!(plan.low_watermark, low);
    assert_eq!(plan.high_watermark, low + blocks(200.0 * MIB * plan.mean_footprint));
    let faster = planned("--write-rate 200 --reaction 2000 --reclaim-rate 50 --hysteresis 4000", &runs);
    assert!(faster.low_watermark > plan.low_watermark && faster.capacity < plan.capacity);
}

#[test]
fn where_no_plan_is_possible_the_reason_is_given() {
    let half = alike(300, 0.5);
    for (flags, runs, why) in [
        ("", &alike(63, 0.5), "too little data: 63 MiB measured, and a plan takes at least 64 MiB"),
        ("", &alike(1, 0.5), "too little data: 1 MiB"),
        ("", &alike(0, 0.5), "too little data: 0 B"),
        ("--physical 1G --write-rate 500000", &half, "leaves nothing of 1 GiB of media"),
        ("--physical 1G --write-rate 1 --reclaim-rate 1000", &half, "the high watermark"),
        ("--write-rate 0 --reclaim-rate 0", &half, "reclaim frees nothing at 0 MiB/s in 5000 ms"),
        ("--hysteresis 0", &half, "reclaim frees nothing at 500 MiB/s in 0 ms"),
        ("", &alike(300, 1.0), "less than the media there is"),
        ("--physical 300M --write-rate 1 --reclaim-rate 1", &alike(300, 0.6), "in steps of 256 MiB"),
        ("--physical 100M --write-rate 1 --reclaim-rate 1", &half, "a device has at least 256 MiB"),
    ] {
        let error = attempt(flags, runs).unwrap_err().to_string();
        assert!(error.contains(why), "{flags}: {error}");
    }
}

#[test]
fn a_capacity_that_no_device_has_is_capped() {
    let plan = planned("--physical 4T", &alike(300, 0.1));
    assert_eq!(plan.capacity, 8 << 40);
    assert!(plan.assumptions.iter().any(|line| line.starts_with("Capped: the data would allow 40.0 TiB")), "{plan:?}");
}

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    serve: crate::serve::ServeArgs,
}

/// A number whose logarithm is drawn evenly.
fn log_uniform(draw: &mut Draw, least: f64, most: f64) -> f64 {
    least * (most / least).powf(draw.below(1 << 20) as f64 / f64::from(1 << 20))
}

#[test]
fn serve_takes_the_flags_of_every_plan() {
    let mut draw = Draw::new(11);
    let mut plans = 0;
    for case in 0..2000 {
        let physical = (log_uniform(&mut draw, 4096.0, (8_u64 << 40) as f64) as u64) / 4096 * 4096;
        let rate = |draw: &mut Draw| if draw.below(8) == 0 { 0.0 } else { log_uniform(draw, 1e-4, 1e6) };
        let flags = format!(
            "--physical {physical} --write-rate {} --reclaim-rate {} --reaction {} --hysteresis {} --window 16",
            rate(&mut draw),
            rate(&mut draw),
            draw.below(3000),
            draw.below(3000),
        );
        let footprint = log_uniform(&mut draw, 8.0 / 4096.0, 1.003);
        let Ok(plan) = attempt(&flags, &alike(64, footprint)) else { continue };
        plans += 1;
        let line = ["serve", "--socket", "s"].map(str::to_owned).into_iter().chain(plan.serve_flags());
        let serve = Serve::try_parse_from(line).unwrap_or_else(|error| panic!("case {case}: {flags}: {error}")).serve;
        serve.check().unwrap_or_else(|error| panic!("case {case}: {flags}: {error:#}"));
        assert_eq!((serve.capacity, serve.physical()), (plan.capacity, plan.physical));
    }
    assert!(plans > 300, "only {plans} plans");
}

#[test]
fn a_plan_from_few_windows_is_called_weak() {
    assert!(planned("", &phases(1000)).assumptions.iter().any(|line| line.starts_with("Weak")));
    assert!(!planned("", &phases(4096)).assumptions.iter().any(|line| line.starts_with("Weak")));
}

#[test]
fn a_plan_from_a_sample_is_called_optimistic() {
    let runs = phases(4096);
    let doubts = [true, false].map(|sampled| {
        let plan = plan(&args("").goal(), Measured { sampled, ..measured(&runs) }, 1).unwrap();
        plan.assumptions.iter().filter(|line| line.starts_with("Optimistic")).count()
    });
    assert_eq!(doubts, [1, 0]);
}
