//! The cases of a test program, read from what it prints: KTAP, nested or not (Documentation/dev-tools/ktap.rst).
//!
//! kselftest's programs and scripts nest in two ways: by spaces, as the specification says, and by `# ` before each line of the
//! inner program. A result stands below what it is the sum of. Inner results are kept, with the outer one's name in front; the
//! outer one is kept only if it says what they do not: a failure although all of them passed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The most cases kept of a program, which may print without end.
const MOST: usize = 10_000;
/// The longest name kept, bytes.
const LONGEST: usize = 300;

/// A name longer than this gets no further outer names, bytes.
const MOST_NESTED: usize = 4 * LONGEST;

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaseResult {
    /// `ok`, an expected failure (`# XFAIL`) included.
    Passed,
    /// `not ok`.
    Failed,
    /// `ok`, with `# SKIP`.
    Skipped,
}

/// A case of a test program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Its name, after those of the tests around it. Unique in its program.
    pub name: String,
    /// How it ended.
    pub result: CaseResult,
    /// What stands after it: the reason why it was skipped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How many cases ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaseCounts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
}

impl CaseCounts {
    /// Counts these cases.
    pub fn of(cases: &[Case]) -> Self {
        let mut counts = Self::default();
        for case in cases {
            *match case.result {
                CaseResult::Passed => &mut counts.passed,
                CaseResult::Failed => &mut counts.failed,
                CaseResult::Skipped => &mut counts.skipped,
            } += 1;
        }
        counts
    }
}

impl fmt::Display for CaseCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Reads a program's output line by line.
#[derive(Debug, Default)]
pub struct CaseReader {
    /// Each with the width of what stood before it.
    found: Vec<(usize, Case)>,
    /// What the next cases are about, as `# [RUN] TEXT` says.
    about: Option<String>,
    /// Why the program skips everything: `1..0 # SKIP WHY`.
    skipped: Option<String>,
}

impl CaseReader {
    /// Reads the next line.
    pub fn line(&mut self, line: &str) {
        let text = inner(line);
        let width = line.len() - text.len();
        if let Some(about) = text.strip_prefix("[RUN] ") {
            self.about = Some(about.trim().to_owned());
        } else if ["TAP version", "KTAP version"].iter().any(|head| text.starts_with(head)) {
            self.about = None;
        } else if let Some(why) = text.strip_prefix("1..0 # SKIP") {
            self.skipped = Some(why.trim().to_owned());
        } else if self.found.len() < MOST
            && let Some(mut case) = case(text)
        {
            self.take_inner(width, &case);
            let summed_up = self.found.iter().rev().take_while(|(at, _)| *at == usize::MAX).count();
            if summed_up > 0 {
                self.about = None;
            } else if let Some(about) = &self.about {
                case.name = format!("{about}: {}", case.name);
            }
            let tells_more = case.result == CaseResult::Failed
                && self.found.iter().rev().take(summed_up).all(|(_, inner)| inner.result != CaseResult::Failed);
            for (at, _) in self.found.iter_mut().rev().take(summed_up) {
                *at = width;
            }
            if summed_up == 0 || tells_more {
                self.found.push((width, case));
            }
        }
    }

    /// Puts the name of this case before those of the cases inside of it, and marks them.
    fn take_inner(&mut self, width: usize, outer: &Case) {
        for (at, inner) in self.found.iter_mut().rev().take_while(|(at, _)| *at > width) {
            *at = usize::MAX;
            // Whoever nests deeper wants to fill memory.
            if inner.name.len() < MOST_NESTED {
                inner.name = format!("{}: {}", outer.name, inner.name);
            }
        }
    }

    /// Why the program skipped everything, if it said so.
    pub fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// The cases, in order. Cases of the same name are numbered.
    pub fn cases(self) -> Vec<Case> {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        let mut cases = Vec::new();
        for (_, mut case) in self.found {
            let time = times.entry(case.name.clone()).or_default();
            *time += 1;
            if *time > 1 {
                case.name = format!("{} ({time})", case.name);
            }
            cases.push(case);
        }
        cases
    }
}

/// What a line says without the signs of nesting.
fn inner(line: &str) -> &str {
    let mut text = line.trim_end();
    while let Some(rest) = text.strip_prefix(' ').or_else(|| text.strip_prefix("# ")) {
        text = rest;
    }
    text
}

/// The case in a line: `not ok 3 - NAME # SKIP WHY`.
fn case(text: &str) -> Option<Case> {
    let (passed, rest) = match text.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok ")?),
    };
    let (number, named) = rest.split_once(' ').unwrap_or((rest, ""));
    number.parse::<u32>().ok()?;
    let (name, directive) = named.split_once("# ").unwrap_or((named, ""));
    let name = name.trim().trim_start_matches("- ").trim();
    let (word, note) = directive.split_once(' ').unwrap_or((directive, ""));
    let known = ["SKIP", "XFAIL", "XPASS", "TODO", "TIMEOUT"].contains(&word);
    let result = match (passed, word) {
        (true, "SKIP") => CaseResult::Skipped,
        (true, _) => CaseResult::Passed,
        (false, _) => CaseResult::Failed,
    };
    // kselftest.h prints `ok 5 # SKIP NAME`.
    let (name, note) = match (name.is_empty(), known) {
        (true, _) => (note.trim(), ""),
        (false, true) => (name, note.trim()),
        (false, false) => (name, directive.trim()),
    };
    let name = if name.is_empty() { number } else { name };
    Some(Case { name: cut(name).to_owned(), result, note: cut(note).to_owned() })
}

/// The beginning of a text that may have any length.
fn cut(text: &str) -> &str {
    let end = (0..=LONGEST.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, CaseResult)> {
        let mut reader = CaseReader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.cases().into_iter().map(|case| (case.name, case.result)).collect()
    }

    fn named(expected: &[(&str, CaseResult)]) -> Vec<(String, CaseResult)> {
        expected.iter().map(|(name, result)| ((*name).to_owned(), *result)).collect()
    }

    #[test]
    fn each_result_of_a_flat_program_is_a_case() {
        let text = "TAP version 13\n1..6\nok 1 one\nnot ok 2 - two\nok 3 three # SKIP no swap\nok 4 # SKIP four\n\
                    ok 5 # XFAIL five\nnot ok 6 six # exit=1\n# Totals: pass:3 fail:2\nok, not a case\n";
        let expected = [
            ("one", CaseResult::Passed),
            ("two", CaseResult::Failed),
            ("three", CaseResult::Skipped),
            ("four", CaseResult::Skipped),
            ("five", CaseResult::Passed),
            ("six", CaseResult::Failed),
        ];
        assert_eq!(read(text), named(&expected));
    }

    #[test]
    fn inner_results_stand_for_the_outer_one_with_its_name() {
        let text = "TAP version 13\n# TAP version 13\n# 1..2\n# ok 1 a\n# not ok 2 b\nnot ok 1 first\nok 2 second\n\
                    # ok 1 a\nnot ok 3 third # exit=139\n1..3\n";
        let expected = [
            ("first: a", CaseResult::Passed),
            ("first: b", CaseResult::Failed),
            ("second", CaseResult::Passed),
            ("third: a", CaseResult::Passed),
            ("third", CaseResult::Failed),
        ];
        assert_eq!(read(text), named(&expected));
    }

    #[test]
    fn nesting_may_be_deep_and_by_spaces() {
        let text = "KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n    ok 1 x\n    ok 2 y\n  ok 1 inner\n  ok 2 other\nok 1 outer\n";
        let expected = ["outer: inner: x", "outer: inner: y", "outer: other"].map(|name| (name, CaseResult::Passed));
        assert_eq!(read(text), named(&expected));
    }

    #[test]
    fn cases_of_one_name_are_told_apart_by_what_runs_or_by_a_number() {
        let text = "# [RUN] base page\nok 1 no leak\n# [RUN] huge page\nok 2 no leak\nok 3 no leak\n";
        let expected = ["base page: no leak", "huge page: no leak", "huge page: no leak (2)"];
        assert_eq!(read(text), named(&expected.map(|name| (name, CaseResult::Passed))));
    }

    #[test]
    fn a_program_that_skips_everything_says_why() {
        let mut reader = CaseReader::default();
        "TAP version 13\n1..0 # SKIP no KSM\n".lines().for_each(|line| reader.line(line));
        assert_eq!(reader.skipped(), Some("no KSM"));
        assert!(reader.cases().is_empty());
    }

    #[test]
    fn hostile_output_is_bounded() {
        let mut reader = CaseReader::default();
        (0..MOST + 5).for_each(|number| reader.line(&format!("ok {number} {}", "é".repeat(LONGEST))));
        let cases = reader.cases();
        assert!(cases.len() == MOST && cases.iter().all(|case| case.name.len() <= LONGEST + 10));
    }
}
