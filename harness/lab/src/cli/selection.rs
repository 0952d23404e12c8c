//! Selects scenarios by filters like nextest's, and partitions them for several machines.

use std::{cmp::Reverse, collections::BTreeSet, str::FromStr};

use anyhow::{Result, bail};
use clap::Args;

use crate::lab::catalog::Catalog;
use crate::lab::scenario::Scenario;

/// Options that select scenarios.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which scenarios")]
pub(super) struct Selection {
    /// Run scenarios whose name contains any FILTER; =NAME matches exactly
    filter: Vec<String>,

    /// Include slow scenarios that otherwise run only by exact name
    #[arg(long)]
    all: bool,

    /// Match FILTER against the whole name
    #[arg(long)]
    exact: bool,

    /// Skip scenarios whose name contains WORD; may be given more than once
    #[arg(long, value_name = "WORD")]
    skip: Vec<String>,

    /// Run only part K of N, for N machines; the parts take about equally long
    #[arg(long, value_name = "K/N")]
    partition: Option<Partition>,
}

impl Selection {
    /// The selected scenarios, short ones first so that results appear soon. A part may be empty.
    ///
    /// # Errors
    /// A word matches no scenario, or `--skip` excludes every match.
    pub(super) fn scenarios(&self, catalog: &Catalog) -> Result<Vec<&'static Scenario>> {
        self.among(catalog, |scenario| self.all || !scenario.by_name || self.names(scenario.name))
    }

    /// The selected scenarios with one of these names. There may be none.
    ///
    /// # Errors
    /// A word matches no scenario, or `--skip` excludes every match.
    pub(super) fn named(&self, catalog: &Catalog, names: &BTreeSet<&str>) -> Result<Vec<&'static Scenario>> {
        let mut scenarios = self.among(catalog, |_| true)?;
        scenarios.retain(|scenario| names.contains(scenario.name));
        Ok(scenarios)
    }

    /// The scenarios to list, including those that run only by exact name.
    ///
    /// # Errors
    /// A word matches no scenario, or `--skip` excludes every match.
    pub(super) fn shown(&self, catalog: &Catalog) -> Result<Vec<&'static Scenario>> {
        // A partition shows exactly what `run` would run.
        if self.partition.is_some() { self.scenarios(catalog) } else { self.among(catalog, |_| true) }
    }

    fn among(&self, catalog: &Catalog, allowed: impl Fn(&Scenario) -> bool) -> Result<Vec<&'static Scenario>> {
        self.check(catalog, &allowed)?;
        let wanted =
            catalog.scenarios.iter().copied().filter(|scenario| allowed(scenario) && self.wants(scenario.name));
        let mut scenarios: Vec<_> = wanted.collect();
        if scenarios.is_empty() {
            let words: Vec<_> = self.skip.iter().map(|word| format!("'{word}'")).collect();
            let every = if self.filter.is_empty() { "" } else { " that the filters match" };
            bail!("--skip {} skips every scenario{every}", words.join(" "));
        }
        scenarios.sort_by_key(|scenario| (scenario.limit, scenario.name));
        Ok(match self.partition {
            Some(partition) => partition.of(&scenarios),
            None => scenarios,
        })
    }

    /// Checks that each word matches a scenario, so that one typo among several words does not go unnoticed.
    fn check(&self, catalog: &Catalog, allowed: impl Fn(&Scenario) -> bool) -> Result<()> {
        let fitting =
            |word: &str| catalog.scenarios.iter().filter(|scenario| self.fits(word, scenario.name)).collect::<Vec<_>>();
        let missed: Vec<_> = self.filter.iter().chain(&self.skip).filter(|word| fitting(word).is_empty()).collect();
        if let Some(first) = missed.first() {
            let names: Vec<_> = catalog.scenarios.iter().map(|scenario| scenario.name).collect();
            let near = similar::get_close_matches(first.trim_start_matches('='), &names, 1, 0.7);
            let hint = near.first().map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
            let missed: Vec<_> = missed.iter().map(|word| word.as_str()).collect();
            bail!("no scenario matches {}{hint}; `list` shows them", missed.join(" or "));
        }
        for word in &self.filter {
            let fitting = fitting(word);
            if let (Some(left), false) = (fitting.first(), fitting.iter().any(|scenario| allowed(scenario))) {
                bail!("{} runs only by exact name; give ={} or --all", left.name, left.name);
            }
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |word: &String| self.fits(word, name);
        (self.filter.is_empty() || self.filter.iter().any(fits)) && !self.skip.iter().any(fits)
    }

    fn fits(&self, word: &str, name: &str) -> bool {
        match word.strip_prefix('=') {
            Some(word) => name == word,
            None if self.exact => name == word,
            None => name.contains(word),
        }
    }

    /// Whether a word is exactly this name.
    fn names(&self, name: &str) -> bool {
        self.filter.iter().any(|word| word.strip_prefix('=').unwrap_or(word) == name)
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
            _ => Err("must be K/N with K from 1 to N, such as 1/3".to_owned()),
        }
    }
}

impl Partition {
    /// The scenarios of this part, in their original order. Assigns them by falling limit, each to the part with the least
    /// work so far, so that every machine computes the same parts independently.
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

    const fn scenario(name: &'static str, seconds: u64) -> Scenario {
        Scenario { name, limit: Duration::from_secs(seconds), by_name: seconds >= 300, ..Scenario::USUAL }
    }

    static CATALOG: Catalog = Catalog {
        program: "cxl-cram-harness",
        scenarios: &[
            &scenario("bear", 60),
            &scenario("cram_bear", 90),
            &scenario("cram_soak", 600),
            &scenario("enumerate", 30),
            &scenario("integrity", 120),
            &scenario("region", 60),
            &scenario("watermark", 45),
        ],
        snapshots: "guest-tests/snapshots",
    };

    fn names(selection: &Selection) -> Vec<&'static str> {
        selection.scenarios(&CATALOG).unwrap().iter().map(|scenario| scenario.name).collect()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_scenario_is_selected_when_its_name_contains_any_word() {
        let selected = names(&Selection { filter: words(&["integ", "enum"]), ..Selection::default() });
        assert!(selected.contains(&"integrity") && selected.contains(&"enumerate"), "{selected:?}");
        assert!(!selected.contains(&"bear"));
    }

    #[test]
    fn an_equals_sign_or_exact_matches_whole_names() {
        assert_eq!(names(&Selection { filter: words(&["=bear"]), ..Selection::default() }), ["bear"]);
        assert_eq!(names(&Selection { filter: words(&["bear"]), exact: true, ..Selection::default() }), ["bear"]);
        let part_of_one = Selection { filter: words(&["bea"]), exact: true, ..Selection::default() };
        assert!(part_of_one.scenarios(&CATALOG).unwrap_err().to_string().contains("bea"));
    }

    fn refused(filter: &[&str], skip: &[&str]) -> String {
        let selection = Selection { filter: words(filter), skip: words(skip), ..Selection::default() };
        selection.scenarios(&CATALOG).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_every_word_that_matches_nothing() {
        let error = refused(&["=enumerate", "watermrk"], &[]);
        assert_eq!(error, "no scenario matches watermrk (did you mean watermark?); `list` shows them");
        assert!(refused(&["=bear", "=zero", "qqq"], &[]).contains("=zero or qqq"));
        assert!(refused(&["bear"], &["qqq"]).contains("no scenario matches qqq;"));
        let soak = CATALOG.scenarios.iter().find(|scenario| scenario.by_name).unwrap().name;
        assert!(refused(&["=bear", &soak[..soak.len() - 1]], &[]).contains("--all"));
    }

    #[test]
    fn skipping_every_scenario_is_an_error() {
        assert_eq!(refused(&[], &[""]), "--skip '' skips every scenario");
        assert_eq!(refused(&["=bear"], &["bear"]), "--skip 'bear' skips every scenario that the filters match");
    }

    #[test]
    fn scenarios_can_be_selected_by_a_list_of_names() {
        let soak = CATALOG.scenarios.iter().find(|scenario| scenario.by_name).unwrap().name;
        let all = Selection::default().named(&CATALOG, &BTreeSet::from([soak, "bear", "gone"])).unwrap();
        assert_eq!(all.iter().map(|scenario| scenario.name).collect::<BTreeSet<_>>(), BTreeSet::from([soak, "bear"]));
        let some = Selection { filter: words(&["=region"]), ..Selection::default() };
        assert!(some.named(&CATALOG, &BTreeSet::from(["bear"])).unwrap().is_empty());
    }

    #[test]
    fn a_skipped_scenario_is_not_selected() {
        let selected = names(&Selection { skip: words(&["integ"]), ..Selection::default() });
        let others = |scenario: &&&Scenario| !scenario.name.contains("integ") && !scenario.by_name;
        assert_eq!(selected.len(), CATALOG.scenarios.iter().filter(others).count());
    }

    #[test]
    fn every_scenario_is_in_exactly_one_part() {
        for parts in 1..=CATALOG.scenarios.len() + 2 {
            let mut together: Vec<_> = (0..parts)
                .flat_map(|part| Partition { part, parts }.of(CATALOG.scenarios))
                .map(|scenario| scenario.name)
                .collect();
            together.sort_unstable();
            let mut all: Vec<_> = CATALOG.scenarios.iter().map(|scenario| scenario.name).collect();
            all.sort_unstable();
            assert_eq!(together, all, "{parts} parts");
        }
    }

    #[test]
    fn parts_differ_by_no_more_than_the_longest_scenario() {
        let load = |part| -> Duration {
            Partition { part, parts: 3 }.of(CATALOG.scenarios).iter().map(|scenario| scenario.limit).sum()
        };
        let loads: Vec<_> = (0..3).map(load).collect();
        let longest = CATALOG.scenarios.iter().map(|scenario| scenario.limit).max().unwrap();
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
