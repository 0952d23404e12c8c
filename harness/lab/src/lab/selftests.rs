//! The kernel's own selftests, which the guest has if its kernel's tree has them.
//!
//! Their results are KTAP: a plan, and a line for each test. docs/scenarios.md explains how to run them by hand.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Lab;
use crate::provision::SELFTESTS_IN_GUEST;

/// A test's name, and `ok`, `not ok` or the reason why it was skipped.
type Outcome = (String, String);

impl Lab {
    /// Runs a program of the kernel's selftests, `TARGET/PROGRAM` and its arguments, with these environment variables, and
    /// records the result of each of its tests as a fact. What a test prints about itself becomes a figure.
    ///
    /// # Errors
    /// The program ends before all tests of its plan have.
    pub fn selftest(&mut self, program: &str, environment: &[(&str, &str)], limit: Duration) -> Result<()> {
        let set = environment.iter().map(|(name, value)| format!("{name}='{value}' ")).collect::<String>();
        let line = format!("{set}{SELFTESTS_IN_GUEST}/{program}");
        let ran = self.guest.run(&["sh", "-c", &line], limit).with_context(|| format!("in the guest: {line}"))?;
        let (output, remarks) = (ran.stdout.text(), ran.stderr.text());
        let outcomes = outcomes(&output).with_context(|| format!("in the guest: {line}: {}", remarks.trim()))?;
        for (name, outcome) in outcomes {
            let full = full(program, &name);
            let printed = printed(&name, output.lines().chain(remarks.lines()));
            if !printed.is_empty() {
                self.figure(&full, printed);
            }
            self.fact(&full, outcome);
        }
        Ok(())
    }
}

/// A test's name, with its program's where it does not begin with that.
fn full(program: &str, test: &str) -> String {
    let program = program.split(' ').next().unwrap_or(program);
    let program = program.rsplit('/').next().unwrap_or(program);
    match test.split_once('.') {
        Some((first, _)) if first == program => test.to_owned(),
        _ => format!("{program}.{test}"),
    }
}

/// The results in KTAP, in their order.
fn outcomes(text: &str) -> Result<Vec<Outcome>> {
    let plan = text.lines().find_map(|line| line.strip_prefix("1.."));
    let plan = plan.context("it has printed no plan")?;
    let (number, skipped) = plan.split_once(" # SKIP ").map_or((plan, None), |(number, why)| (number, Some(why)));
    let planned: usize = number.trim().parse().with_context(|| format!("its plan is 1..{plan}"))?;
    if let Some(why) = skipped {
        return Ok(vec![("all".to_owned(), format!("skipped: {}", why.trim()))]);
    }
    let outcomes: Vec<_> = text.lines().filter_map(outcome).collect();
    ensure!(outcomes.len() == planned, "it ended after {} of {planned} tests", outcomes.len());
    Ok(outcomes)
}

/// The result in a line, if it is one: `not ok 3 NAME # SKIP REASON`.
fn outcome(line: &str) -> Option<Outcome> {
    let (verdict, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => ("not ok", rest),
        None => ("ok", line.strip_prefix("ok ")?),
    };
    let (number, named) = rest.split_once(' ')?;
    number.parse::<u32>().ok()?;
    Some(match named.split_once(" # SKIP ") {
        Some((name, why)) => (name.trim().to_owned(), format!("skipped: {}", why.trim())),
        None => (named.trim().to_owned(), verdict.to_owned()),
    })
}

/// What a test has printed about itself: lines `# FILE:LINE:NAME:TEXT` or `# NAME: TEXT`.
fn printed<'a>(test: &str, lines: impl Iterator<Item = &'a str>) -> String {
    let short = test.rsplit('.').next().unwrap_or(test);
    let (inside, before) = (format!(":{short}:"), format!("# {short}: "));
    let lines: Vec<_> = lines.filter(|line| line.contains(&inside) || line.starts_with(&before)).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_ktap_is_a_result() {
        let text = "TAP version 13\n1..3\n# Starting 3 tests\nok 1 a.b\n#  RUN  a.c ...\nnot ok 2 a.c\nok 3 a.d # SKIP no swap\n# Totals: pass:1\n";
        let expected = [("a.b", "ok"), ("a.c", "not ok"), ("a.d", "skipped: no swap")];
        let expected: Vec<_> = expected.map(|(name, what)| (name.to_owned(), what.to_owned())).into();
        assert_eq!(outcomes(text).unwrap(), expected);
    }

    #[test]
    fn a_program_that_skips_everything_has_one_result() {
        let expected = vec![("all".to_owned(), "skipped: no tier".to_owned())];
        assert_eq!(outcomes("TAP version 13\n1..0 # SKIP no tier\n").unwrap(), expected);
    }

    #[test]
    fn a_program_that_dies_is_an_error() {
        let error = outcomes("TAP version 13\n1..2\nok 1 a.b\n").unwrap_err().to_string();
        assert_eq!(error, "it ended after 1 of 2 tests");
        assert!(outcomes("Killed\n").is_err());
    }

    #[test]
    fn a_name_begins_with_its_program_once() {
        assert_eq!(full("private_nodes/pages", "pages.split"), "pages.split");
        assert_eq!(full("cram/cram_race", "fork"), "cram_race.fork");
        assert_eq!(full("cram/cram_race -n 9 fork", "fork"), "cram_race.fork");
    }

    #[test]
    fn what_a_test_prints_about_itself_is_found() {
        let lines = ["# pages.c:9:other:no", "# pages.c:7:split:Expected 1 == 2", "# split: Test failed"];
        assert_eq!(
            printed("pages.split", lines.into_iter()),
            "# pages.c:7:split:Expected 1 == 2; # split: Test failed"
        );
    }
}
