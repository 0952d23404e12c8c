//! Which scenarios: words, as users of nextest know them, and a part of them for one of several machines.

use std::{cmp::Reverse, str::FromStr};

use anyhow::{Result, bail};
use clap::Args;

use crate::scenario::{CATALOG, Scenario};

/// Which scenarios.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which scenarios")]
pub(super) struct Selection {
    /// Those whose names contain one of these; =NAME is the one of that name
    filter: Vec<String>,

    /// Also those that are otherwise played only when their whole name is given
    #[arg(long)]
    all: bool,

    /// Words are whole names
    #[arg(long)]
    exact: bool,

    /// Not those whose names contain this; may be given more than once
    #[arg(long, value_name = "WORD")]
    skip: Vec<String>,

    /// Part K of N, for N machines: each scenario is in one part, parts take about as long as each other
    #[arg(long, value_name = "K/N")]
    partition: Option<Partition>,
}

impl Selection {
    /// The scenarios, short ones first, so that there is soon something to see. There may be none in a part.
    ///
    /// # Errors
    /// No scenario fits the words.
    pub(super) fn scenarios(&self) -> Result<Vec<&'static Scenario>> {
        self.among(|scenario| self.all || !scenario.by_name || self.names(scenario.name))
    }

    /// The same with those that are played only by their whole names, to show them.
    ///
    /// # Errors
    /// No scenario fits the words.
    pub(super) fn shown(&self) -> Result<Vec<&'static Scenario>> {
        // A part is what is played.
        if self.partition.is_some() { self.scenarios() } else { self.among(|_| true) }
    }

    fn among(&self, allowed: impl Fn(&Scenario) -> bool) -> Result<Vec<&'static Scenario>> {
        let named = CATALOG.iter().copied().filter(|scenario| self.wants(scenario.name));
        let (mut scenarios, left): (Vec<_>, Vec<_>) = named.partition(|scenario| allowed(scenario));
        if let ([], [left, ..]) = (&scenarios[..], &left[..]) {
            bail!("{} is played only by its whole name: give ={} or --all", left.name, left.name);
        }
        if scenarios.is_empty() {
            bail!("no scenario is named like {}; `list` shows them", self.words());
        }
        scenarios.sort_by_key(|scenario| (scenario.limit, scenario.name));
        Ok(match self.partition {
            Some(partition) => partition.of(&scenarios),
            None => scenarios,
        })
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |word: &String| match word.strip_prefix('=') {
            Some(word) => name == word,
            None if self.exact => name == word,
            None => name.contains(word.as_str()),
        };
        (self.filter.is_empty() || self.filter.iter().any(fits)) && !self.skip.iter().any(fits)
    }

    /// Whether a word is this whole name.
    fn names(&self, name: &str) -> bool {
        self.filter.iter().any(|word| word.strip_prefix('=').unwrap_or(word) == name)
    }

    fn words(&self) -> String {
        let wanted = if self.filter.is_empty() { "anything".to_owned() } else { self.filter.join(" or ") };
        if self.skip.is_empty() { wanted } else { format!("{wanted}, but not {}", self.skip.join(" or ")) }
    }
}

/// One part of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Partition {
    /// From 0.
    part: usize,
    parts: usize,
}

impl FromStr for Partition {
    type Err = String;

    /// `k/n`, or `count:k/n` as nextest writes it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.strip_prefix("count:").unwrap_or(text).split_once('/');
        let numbers = numbers.and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
        match numbers {
            Some((part, parts)) if (1..=parts).contains(&part) => Ok(Self { part: part - 1, parts }),
            _ => Err("give K/N with K from 1 to N, such as 1/3".to_owned()),
        }
    }
}

impl Partition {
    /// The scenarios of this part, in the order they came in. The one that may take longest goes first, each to the part
    /// with least to do so far: every machine comes to the same parts without asking the others.
    fn of(self, scenarios: &[&'static Scenario]) -> Vec<&'static Scenario> {
        let mut by_limit: Vec<usize> = (0..scenarios.len()).collect();
        by_limit.sort_by_key(|&index| (Reverse(scenarios[index].limit), scenarios[index].name));
        let mut loads = vec![std::time::Duration::ZERO; self.parts];
        let mut mine = Vec::new();
        for index in by_limit {
            let Some(least) = (0..self.parts).min_by_key(|&part| loads[part]) else { break };
            loads[least] += scenarios[index].limit;
            if least == self.part {
                mine.push(index);
            }
        }
        mine.sort_unstable();
        mine.into_iter().map(|index| scenarios[index]).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn names(selection: &Selection) -> Vec<&'static str> {
        selection.scenarios().unwrap().iter().map(|scenario| scenario.name).collect()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn words_are_parts_of_names_and_any_of_them_will_do() {
        let selected = names(&Selection { filter: words(&["integ", "enum"]), ..Selection::default() });
        assert!(selected.contains(&"integrity") && selected.contains(&"enumerate"), "{selected:?}");
        assert!(!selected.contains(&"bear"));
    }

    #[test]
    fn whole_names_are_asked_for_by_an_equals_sign_or_for_all_words() {
        assert_eq!(names(&Selection { filter: words(&["=bear"]), ..Selection::default() }), ["bear"]);
        assert_eq!(names(&Selection { filter: words(&["bear"]), exact: true, ..Selection::default() }), ["bear"]);
        let part_of_one = Selection { filter: words(&["bea"]), exact: true, ..Selection::default() };
        assert!(part_of_one.scenarios().unwrap_err().to_string().contains("bea"));
    }

    #[test]
    fn what_is_skipped_is_not_played() {
        let selected = names(&Selection { skip: words(&["integ"]), ..Selection::default() });
        let others = |scenario: &&&Scenario| !scenario.name.contains("integ") && !scenario.by_name;
        assert_eq!(selected.len(), CATALOG.iter().filter(others).count());
    }

    #[test]
    fn every_scenario_is_in_exactly_one_part() {
        for parts in 1..=CATALOG.len() + 2 {
            let mut together: Vec<_> = (0..parts)
                .flat_map(|part| Partition { part, parts }.of(CATALOG))
                .map(|scenario| scenario.name)
                .collect();
            together.sort_unstable();
            let mut all: Vec<_> = CATALOG.iter().map(|scenario| scenario.name).collect();
            all.sort_unstable();
            assert_eq!(together, all, "{parts} parts");
        }
    }

    #[test]
    fn parts_differ_by_no_more_than_the_longest_scenario() {
        let load =
            |part| -> Duration { Partition { part, parts: 3 }.of(CATALOG).iter().map(|scenario| scenario.limit).sum() };
        let loads: Vec<_> = (0..3).map(load).collect();
        let longest = CATALOG.iter().map(|scenario| scenario.limit).max().unwrap();
        assert!(*loads.iter().max().unwrap() - *loads.iter().min().unwrap() <= longest, "{loads:?}");
    }

    #[test]
    fn a_part_is_written_as_nextest_writes_it_or_shorter() {
        assert_eq!("2/3".parse(), Ok(Partition { part: 1, parts: 3 }));
        assert_eq!("count:2/3".parse(), Ok(Partition { part: 1, parts: 3 }));
        for wrong in ["", "0/3", "4/3", "1", "1/0", "hash:1/2", "1/-1", "99999999999999999999/1"] {
            assert!(wrong.parse::<Partition>().is_err(), "{wrong}");
        }
    }
}
