//! The report on the terminal: a line for each scenario as it ends, its figures, and where the logs are.

use std::{fmt::Write, time::Duration};

use console::{Term, style};
use textwrap::{Options, WordSplitter};

use super::{Counts, Outcome, Verdict};

/// The column of a scenario's description and of the lines below it.
const INDENT: &str = "                ";
/// On a narrower terminal, lines are not wrapped.
const NARROWEST: usize = 40;

impl Outcome {
    /// The line shown when the scenario ends, followed by its figures, the reason for a failure and the difference from the
    /// snapshot. Coloured if the terminal supports it, and wrapped between words if there is a width.
    pub fn line(&self, width: Option<usize>) -> String {
        let mark = match self.verdict {
            Verdict::Passed => style("PASS").green().bold(),
            Verdict::Failed(_) => style("FAIL").red().bold(),
            Verdict::Skipped(_) => style("SKIP").yellow().bold(),
            Verdict::Interrupted => style("STOP").yellow().bold(),
        };
        let head = format!("PASS {:>6.1}s  {:<12} ", self.seconds, self.name);
        let story = wrapped(&format!("{head}{}", self.story), width, "", INDENT);
        let mut text = format!("{mark}{}", story.trim_start_matches("PASS"));
        let column = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        for figure in &self.figures {
            let name = format!("{INDENT}{:<column$}  ", figure.name);
            let below = " ".repeat(name.len());
            let _ = write!(text, "\n{}", wrapped(&figure.value, width, &name, &below));
        }
        for line in self.verdict.reason().unwrap_or_default().lines() {
            // Quoted output of a console or a program keeps its line breaks.
            let quoted = line.starts_with(' ');
            let line = if quoted { format!("{INDENT}{line}") } else { wrapped(line, width, INDENT, INDENT) };
            let _ = write!(text, "\n{line}");
        }
        for line in self.difference.iter().flat_map(|difference| difference.lines()) {
            let line = match line.as_bytes().first() {
                Some(b'+') => style(line).green(),
                Some(b'-') => style(line).red(),
                _ => style(line).dim(),
            };
            let _ = write!(text, "\n{INDENT}{line}");
        }
        text
    }
}

/// The width of this stream's terminal, if it is one.
pub fn width(stream: &Term) -> Option<usize> {
    stream.size_checked().map(|(_, columns)| usize::from(columns))
}

/// Wraps text between words to a width.
fn wrapped(text: &str, width: Option<usize>, first: &str, below: &str) -> String {
    match width.filter(|width| *width >= NARROWEST.max(first.len() + NARROWEST / 2)) {
        None => format!("{first}{text}"),
        Some(width) => {
            // Keep a long path or name whole, so that it can be copied.
            let options = Options::new(width)
                .initial_indent(first)
                .subsequent_indent(below)
                .break_words(false)
                .word_splitter(WordSplitter::NoHyphenation);
            textwrap::fill(text, options)
        }
    }
}

/// The closing lines: how many passed, and where to look.
pub fn summary(outcomes: &[Outcome], elapsed: Duration) -> String {
    let mut text = format!("{} in {:.1} s", Counts::of(outcomes), elapsed.as_secs_f64());
    if let Some(folder) = outcomes.first().and_then(|outcome| outcome.artifacts.parent()) {
        let _ = write!(text, "\nconsole, device log and QEMU command line of each: {}", folder.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::scenario::Scenario;
    use crate::record::facts::Figure;

    #[test]
    fn no_word_is_broken_at_the_terminals_edge() {
        let story = "a page that is freed and zeroed comes back blank, whatever the medium held of it before the reset";
        let mut outcome = Outcome::of(&Scenario { name: "zeros", story, ..Scenario::USUAL });
        let value = "12 faults of a thousand pages each, and then as many more again after the restart".to_owned();
        outcome.figures = vec![Figure { name: "faults".to_owned(), value: value.clone() }];
        let text = outcome.line(Some(60));
        assert!(text.lines().all(|line| console::measure_text_width(line) <= 60), "{text}");
        let words = console::strip_ansi_codes(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(story) && words.contains(&value), "{words}");
        assert_eq!(outcome.line(None).lines().count(), 2, "nothing is wrapped without a terminal");
        assert_eq!(outcome.line(Some(3)).lines().count(), 2, "nothing is wrapped on a terminal too narrow for words");
    }

    #[test]
    fn the_difference_from_the_snapshot_is_not_wrapped() {
        let mut outcome = Outcome::of(&Scenario::USUAL);
        outcome.verdict = Verdict::Failed("the facts differ".to_owned());
        let line = format!("+{}", "word ".repeat(30));
        outcome.difference = Some(line.clone());
        let text = outcome.line(Some(80));
        assert!(console::strip_ansi_codes(&text).ends_with(&line), "{text}");
    }
}
