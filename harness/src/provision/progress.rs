//! Shows how far provisioning is: a bar on a terminal, now and then a line elsewhere, or nothing.
//!
//! Steps that find their product in the cache never show up. Lines come at the start and end of a step and in between
//! every ten seconds or ten per cent, so that a CI log shows life without filling.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const EVERY: Duration = Duration::from_secs(10);
const EVERY_PERCENT: u64 = 10;
/// A step that rushes through its ten per cents says only some of them.
const AT_MOST_EVERY: Duration = Duration::from_secs(2);

type Sink = Arc<Mutex<dyn Write + Send>>;

#[derive(Clone)]
enum Mode {
    Bars,
    Lines(Sink),
    Quiet,
}

/// Where and how provisioning shows its progress.
#[derive(Clone)]
pub struct Progress {
    mode: Mode,
}

impl Progress {
    /// A bar when standard error is a terminal, lines when it is not. Colour follows `NO_COLOR` and `CLICOLOR`.
    pub fn stderr() -> Progress {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bars = std::io::stderr().is_terminal() && !dumb;
        Progress { mode: if bars { Mode::Bars } else { Mode::Lines(Arc::new(Mutex::new(std::io::stderr()))) } }
    }

    /// Shows nothing.
    pub fn quiet() -> Progress {
        Progress { mode: Mode::Quiet }
    }

    /// Lines into any writer.
    pub fn lines(sink: impl Write + Send + 'static) -> Progress {
        Progress { mode: Mode::Lines(Arc::new(Mutex::new(sink))) }
    }

    /// Begins step `number` of `of`.
    pub(super) fn step(&self, number: usize, of: usize, name: &str) -> Step {
        let title = format!("[{number}/{of}] {name}");
        let show = match &self.mode {
            Mode::Bars => Show::Bar(bar(&title)),
            Mode::Lines(sink) => {
                say(sink, &title);
                Show::Lines { sink: sink.clone(), pace: Pace::default() }
            }
            Mode::Quiet => Show::Nothing,
        };
        Step { title, start: Instant::now(), total: 0, at: 0, show }
    }
}

fn bar(title: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_prefix(title.to_owned());
    bar.set_style(
        ProgressStyle::with_template("{prefix:.bold} {spinner} {elapsed} {wide_msg:.dim}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

enum Show {
    Bar(ProgressBar),
    Lines { sink: Sink, pace: Pace },
    Nothing,
}

/// One step under way. Dropped without [`Step::done`], it just goes away: the error speaks for it.
pub(super) struct Step {
    title: String,
    start: Instant,
    total: u64,
    at: u64,
    show: Show,
}

impl Step {
    /// From here on the step counts to about `total`; 0 means that nobody knows how far it is.
    pub(super) fn phase(&mut self, what: &str, total: u64) {
        self.total = total;
        self.at = 0;
        match &mut self.show {
            Show::Bar(bar) => {
                let template = match total {
                    0 => "{prefix:.bold} {spinner} {elapsed} {wide_msg:.dim}",
                    _ => "{prefix:.bold} [{bar:24}] {percent:>3}% {elapsed} {wide_msg:.dim}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_length(total.max(1));
                bar.set_position(0);
                bar.set_message(what.to_owned());
            }
            Show::Lines { sink, pace } => {
                *pace = Pace { said: self.start.elapsed(), percent: 0 };
                say(sink, &format!("{}: {what}", self.title));
            }
            Show::Nothing => {}
        }
    }

    /// One more unit, or no unit but still alive: `detail` is what is going on.
    pub(super) fn advance(&mut self, units: u64, detail: &str) {
        self.at(self.at.saturating_add(units), detail);
    }

    /// `position` units of the phase are behind us. A rough total is never overrun on the display.
    pub(super) fn at(&mut self, position: u64, detail: &str) {
        self.at = position;
        // The total is an estimate: 100 % is only said by `done`.
        let percent = position.saturating_mul(100).checked_div(self.total).unwrap_or(0).min(99);
        match &mut self.show {
            Show::Bar(bar) => {
                bar.set_position(position.min(self.total.saturating_sub(1)));
                bar.set_message(detail.to_owned());
            }
            Show::Lines { sink, pace } => {
                if pace.due(self.start.elapsed(), percent) {
                    let percent = if self.total == 0 { String::new() } else { format!(" {percent}%") };
                    say(sink, &format!("{}: {detail}{percent}", self.title));
                }
            }
            Show::Nothing => {}
        }
    }

    /// Something that the user should know although the step goes on.
    pub(super) fn note(&self, text: &str) {
        let line = format!("{}: {text}", self.title);
        match &self.show {
            Show::Bar(bar) => bar.println(line),
            Show::Lines { sink, .. } => say(sink, &line),
            Show::Nothing => {}
        }
    }

    /// The step is complete; `result` is what came out.
    pub(super) fn done(self, result: &str) {
        let line = format!("{}: {result} ({} s)", self.title, self.start.elapsed().as_secs());
        match self.show {
            Show::Bar(bar) => {
                bar.println(line);
                bar.finish_and_clear();
            }
            Show::Lines { sink, .. } => say(&sink, &line),
            Show::Nothing => {}
        }
    }
}

/// Decides when another line is due.
#[derive(Default)]
struct Pace {
    said: Duration,
    percent: u64,
}

impl Pace {
    fn due(&mut self, now: Duration, percent: u64) -> bool {
        let silent = now.saturating_sub(self.said);
        let due = silent >= EVERY || (silent >= AT_MOST_EVERY && percent >= self.percent + EVERY_PERCENT);
        if due {
            *self = Pace { said: now, percent };
        }
        due
    }
}

fn say(sink: &Sink, line: &str) {
    // Progress that cannot be shown is no reason to stop.
    let _ = writeln!(sink.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_due_after_ten_seconds_or_ten_per_cent() {
        let mut pace = Pace::default();
        assert!(!pace.due(Duration::from_secs(2), 9));
        assert!(pace.due(Duration::from_secs(2), 10));
        assert!(!pace.due(Duration::from_secs(3), 40));
        assert!(pace.due(Duration::from_secs(4), 40));
        assert!(!pace.due(Duration::from_secs(13), 49));
        assert!(pace.due(Duration::from_secs(14), 40));
    }

    #[test]
    fn without_a_terminal_a_quick_step_is_its_plain_beginning_and_end() {
        let text = Text::default();
        let mut step = Progress::lines(text.clone()).step(2, 6, "kernel");
        step.phase("building", 200);
        step.advance(100, "CC mm/swap.o");
        step.note("something to know");
        step.done("ready");
        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        let expected =
            ["[2/6] kernel", "[2/6] kernel: building", "[2/6] kernel: something to know", "[2/6] kernel: ready (0 s)"];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn quiet_is_quiet_and_takes_any_numbers() {
        let mut step = Progress::quiet().step(1, 1, "x");
        step.phase("x", 1);
        step.advance(u64::MAX, "x");
        step.advance(u64::MAX, "x");
        step.done("x");
    }
}
