//! Runs on several kernels side by side: a Markdown table with a column for each run and a row for each scenario, and for each
//! case of a selftest whose result is not the same in all.

use std::{collections::BTreeMap, fmt::Write, fs, io, path::Path};

use anyhow::{Context, Result};

use super::{Outcome, Record, Verdict, replace};
use crate::record::cases::{Case, CaseCounts, CaseResult};

/// In a file that has these lines, only the lines between them are replaced.
const BEGIN: &str = "<!-- report compare: begin -->";
const END: &str = "<!-- report compare: end -->";

/// The table of these runs, each with the head of its column. Reasons are numbered below it.
pub fn table(columns: &[(String, Record)]) -> String {
    let mut rows: BTreeMap<&str, BTreeMap<usize, &Outcome>> = BTreeMap::new();
    for (column, (_, record)) in columns.iter().enumerate() {
        for outcome in &record.scenarios {
            rows.entry(&outcome.name).or_default().insert(column, outcome);
        }
    }
    let mut reasons: Vec<String> = Vec::new();
    let mut text = String::from("| |");
    columns.iter().for_each(|(head, _)| _ = write!(text, " {} |", cell(head)));
    text += "\n|---|";
    columns.iter().for_each(|_| text += "---|");
    for (name, outcomes) in &rows {
        let _ = write!(text, "\n| {} |", cell(name));
        for column in 0..columns.len() {
            let short = outcomes.get(&column).map_or("".into(), |outcome| short(outcome, &mut reasons));
            let _ = write!(text, " {short} |");
        }
        for (case, results) in differing(outcomes) {
            let _ = write!(text, "\n| {}: {} |", cell(name), cell(case));
            (0..columns.len())
                .for_each(|column| _ = write!(text, " {} |", results.get(&column).copied().unwrap_or("")));
        }
    }
    text += "\n| **passed, failed, skipped** |";
    for (_, record) in columns {
        let counts = record.counts();
        let _ = write!(text, " {}, {}, {} |", counts.passed, counts.failed + counts.interrupted, counts.skipped);
    }
    text.push('\n');
    for (number, reason) in (1..).zip(&reasons) {
        let _ = writeln!(text, "{}{number}. {reason}", if number == 1 { "\n" } else { "" });
    }
    text
}

/// The cases whose results differ between runs, with a word for each run that has them.
fn differing<'a>(outcomes: &BTreeMap<usize, &'a Outcome>) -> BTreeMap<&'a str, BTreeMap<usize, &'static str>> {
    let word = |case: &Case| match case.result {
        CaseResult::Passed => "passed",
        CaseResult::Failed => "**failed**",
        CaseResult::Skipped => "skipped",
    };
    let mut all: BTreeMap<&str, BTreeMap<usize, &str>> = BTreeMap::new();
    // A run whose test gave no results at all has its verdict for that.
    let mut runs = 0;
    for (column, outcome) in outcomes.iter().filter(|(_, outcome)| !outcome.cases.is_empty()) {
        runs += 1;
        for case in &outcome.cases {
            all.entry(&case.name).or_default().insert(*column, word(case));
        }
    }
    all.retain(|_, results| {
        let mut words = results.values();
        let first = words.next();
        results.len() < runs || words.any(|word| Some(word) != first)
    });
    all
}

/// The verdict in one word, with the counts of its cases and the number of its reason.
fn short(outcome: &Outcome, reasons: &mut Vec<String>) -> String {
    let CaseCounts { passed, failed, skipped } = CaseCounts::of(&outcome.cases);
    let counts = if outcome.cases.is_empty() { String::new() } else { format!(": {passed}, {failed}, {skipped}") };
    let verdict = &outcome.verdict;
    let word = match verdict {
        Verdict::Passed => return format!("passed{counts}"),
        Verdict::Interrupted => return format!("interrupted{counts}"),
        Verdict::Failed(_) => "**failed**",
        Verdict::Skipped(_) => "skipped",
    };
    let reason = cell(verdict.reason().unwrap_or_default().lines().next().unwrap_or_default());
    let number = reasons.iter().position(|known| *known == reason).unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    });
    format!("{word}{counts} ({})", number + 1)
}

/// Text that neither ends a cell nor is taken for markup.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for c in text.chars() {
        match c {
            c if c.is_control() => cell.push(' '),
            '|' | '<' | '>' | '&' | '*' | '_' | '`' | '[' | ']' | '\\' => cell.extend(['\\', c]),
            c => cell.push(c),
        }
    }
    cell
}

/// Writes the table to a file, or to standard output for `-`. In a page that has the two marks, only what is between them is
/// replaced.
///
/// # Errors
/// The file cannot be read or written, or has one mark without the other.
pub fn write_table(columns: &[(String, Record)], path: &Path) -> Result<()> {
    let (table, failed) = (table(columns), || format!("cannot write the table {}", path.display()));
    if path.as_os_str() == "-" {
        return io::Write::write_all(&mut io::stdout(), table.as_bytes()).with_context(failed);
    }
    let path = std::path::absolute(path).with_context(failed)?;
    let text = match fs::read_to_string(&path) {
        Ok(page) => within(&page, &table).with_context(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => table,
        Err(error) => return Err(error).with_context(failed),
    };
    replace(&path, path.parent().unwrap_or(Path::new("")), &text).with_context(failed)
}

/// The page with the table between its marks; the table alone for a page without marks that is a table itself.
fn within(page: &str, table: &str) -> Result<String> {
    match (page.split_once(BEGIN), page.split_once(END)) {
        (Some((before, _)), Some((whole, after))) if whole.len() > before.len() => {
            Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
        }
        (None, None) if page.starts_with("| |") || page.trim().is_empty() => Ok(table.to_owned()),
        _ => anyhow::bail!(
            "it is a page without the lines {BEGIN} and {END}, in this order; add them, or name a new file"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_of_a_page_is_replaced() {
        let page = format!("# Kernels\n{BEGIN}\nold\n{END}\nrest\n");
        let made = within(&page, "| |\n").unwrap();
        assert_eq!(made, format!("# Kernels\n{BEGIN}\n| |\n{END}\nrest\n"));
        assert_eq!(within(&made, "| |\n").unwrap(), made);
        assert_eq!(within("| | a |\n", "new").unwrap(), "new");
        for page in ["# Something else\n".to_owned(), format!("{END}\n{BEGIN}\n"), format!("{BEGIN}\n")] {
            assert!(within(&page, "new").is_err(), "{page}");
        }
    }
}
