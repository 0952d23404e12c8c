//! Merges the records of partitioned runs.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{FORMAT, Outcome, Record, Verdict};

/// Merges records into one. If several have the same scenario on the same kernel, keeps the worst outcome and adds a note.
pub fn merge(records: impl IntoIterator<Item = Record>) -> Record {
    let mut merged = Record {
        format: FORMAT,
        begun: u64::MAX,
        seconds: 0.0,
        about: Vec::new(),
        notes: Vec::new(),
        scenarios: Vec::new(),
    };
    let mut places = BTreeMap::new();
    let mut repeated = BTreeMap::new();
    for record in records {
        merged.begun = merged.begun.min(record.begun);
        merged.seconds = merged.seconds.max(record.seconds);
        add_new(&mut merged.about, record.about);
        add_new(&mut merged.notes, record.notes);
        for outcome in record.scenarios {
            match places.entry((outcome.name.clone(), outcome.kernel.clone())) {
                Entry::Vacant(place) => {
                    place.insert(merged.scenarios.len());
                    merged.scenarios.push(outcome);
                }
                Entry::Occupied(place) => {
                    *repeated.entry(place.key().clone()).or_insert(1) += 1;
                    let kept = &mut merged.scenarios[*place.get()];
                    if badness(&outcome) > badness(kept) {
                        *kept = outcome;
                    }
                }
            }
        }
    }
    if merged.begun == u64::MAX {
        merged.begun = 0;
    }
    for ((name, kernel), times) in repeated {
        merged.notes.push(format!("{name} ran {times} times on {kernel}; the worst outcome is kept"));
    }
    merged
}

fn badness(outcome: &Outcome) -> u8 {
    match outcome.verdict {
        Verdict::Passed => 0,
        Verdict::Skipped(_) => 1,
        Verdict::Interrupted => 2,
        Verdict::Failed(_) => 3,
    }
}

fn add_new(lines: &mut Vec<String>, more: Vec<String>) {
    for line in more {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
}
