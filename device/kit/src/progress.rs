//! Shows the progress of long tasks: a bar on a terminal, occasional lines elsewhere, or nothing.
//!
//! Lines come at the start and end of a step, and in between every ten seconds or ten per cent, so that a CI log shows
//! life without filling up.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const EVERY: Duration = Duration::from_secs(10);
const EVERY_PERCENT: u64 = 10;
/// Shortest time between lines of a step, however fast it advances.
const AT_MOST_EVERY: Duration = Duration::from_secs(2);

type Sink = Arc<Mutex<dyn Write + Send>>;

#[derive(Clone)]
enum Mode {
    /// A bar for each of several concurrent steps.
    Bars(MultiProgress),
    Lines(Sink),
    Quiet,
}

/// The way tasks show their progress.
#[derive(Clone)]
pub struct Progress {
    mode: Mode,
}

impl Progress {
    /// Bars if standard error is a terminal, otherwise lines. Colour follows `NO_COLOR` and `CLICOLOR`.
    pub fn stderr() -> Progress {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bars = std::io::stderr().is_terminal() && !dumb;
        Progress {
            mode: if bars {
                Mode::Bars(MultiProgress::new())
            } else {
                Mode::Lines(Arc::new(Mutex::new(std::io::stderr())))
            },
        }
    }

    /// Shows nothing.
    pub fn quiet() -> Progress {
        Progress { mode: Mode::Quiet }
    }

    /// Writes lines to `sink`.
    pub fn lines(sink: impl Write + Send + 'static) -> Progress {
        Progress { mode: Mode::Lines(Arc::new(Mutex::new(sink))) }
    }

    /// Shows a message that belongs to no step.
    pub fn say(&self, text: &str) {
        match &self.mode {
            // Fails only if there is no terminal to draw on.
            Mode::Bars(bars) => _ = bars.println(text),
            Mode::Lines(sink) => print(sink, text),
            Mode::Quiet => {}
        }
    }

    /// Starts step `number` of `of`. Without a terminal, a line announces it.
    pub fn step(&self, number: usize, of: usize, name: &str) -> Step {
        let step = self.task(&format!("[{number}/{of}] {name}"), 0);
        if let Show::Lines { sink, .. } = &step.show {
            print(sink, &step.title);
        }
        step
    }

    /// Starts a task that counts to `total`, or to an unknown end (0). Without a terminal, it prints nothing before the
    /// first line is due.
    pub fn task(&self, title: &str, total: u64) -> Step {
        let title = title.to_owned();
        let show = match &self.mode {
            Mode::Bars(bars) => Show::Bar(bar(&title, bars)),
            Mode::Lines(sink) => Show::Lines { sink: sink.clone(), pace: Pace::default() },
            Mode::Quiet => Show::Nothing,
        };
        let step = Step { title, start: Instant::now(), total, at: 0, show };
        step.style();
        step
    }
}

fn bar(title: &str, bars: &MultiProgress) -> ProgressBar {
    let bar = bars.add(ProgressBar::no_length().with_prefix(title.to_owned()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

enum Show {
    Bar(ProgressBar),
    Lines { sink: Sink, pace: Pace },
    Nothing,
}

/// A running step. Dropped without [`Step::done`], it disappears without a line, because an error follows.
pub struct Step {
    title: String,
    start: Instant,
    total: u64,
    at: u64,
    show: Show,
}

impl Step {
    /// Starts a phase that counts to about `total`; 0 means unknown.
    pub fn phase(&mut self, what: &str, total: u64) {
        self.total = total;
        self.at = 0;
        self.style();
        match &mut self.show {
            Show::Bar(bar) => bar.set_message(what.to_owned()),
            Show::Lines { sink, pace } => {
                *pace = Pace { last: self.start.elapsed(), percent: 0 };
                print(sink, &format!("{}: {what}", self.title));
            }
            Show::Nothing => {}
        }
    }

    /// Adapts the bar to the total: a spinner if it is unknown.
    fn style(&self) {
        if let Show::Bar(bar) = &self.show {
            let template = match self.total {
                0 => "{prefix:.bold} {spinner} {elapsed} {wide_msg:.dim}",
                _ => "{prefix:.bold} [{bar:24}] {percent:>3}% {elapsed} {wide_msg:.dim}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_length(self.total.max(1));
            bar.set_position(0);
        }
    }

    /// Advances by `units`, which may be 0 to show life. `detail` describes the current activity.
    pub fn advance(&mut self, units: u64, detail: &str) {
        self.at(self.at.saturating_add(units), detail);
    }

    /// Sets the position in the phase. The display never exceeds the total.
    pub fn at(&mut self, position: u64, detail: &str) {
        self.at = position;
        // The total is an estimate: only `done` means 100 %.
        let percent = position.saturating_mul(100).checked_div(self.total).unwrap_or(0).min(99);
        match &mut self.show {
            Show::Bar(bar) => {
                bar.set_position(position.min(self.total.saturating_sub(1)));
                bar.set_message(detail.to_owned());
            }
            Show::Lines { sink, pace } => {
                if pace.due(self.start.elapsed(), percent) {
                    let percent = if self.total == 0 { String::new() } else { format!(" {percent}%") };
                    print(sink, &format!("{}: {detail}{percent}", self.title));
                }
            }
            Show::Nothing => {}
        }
    }

    /// Shows a message while the step continues.
    pub fn note(&self, text: &str) {
        let line = format!("{}: {text}", self.title);
        match &self.show {
            Show::Bar(bar) => bar.println(line),
            Show::Lines { sink, .. } => print(sink, &line),
            Show::Nothing => {}
        }
    }

    /// Completes the step and shows its result.
    pub fn done(self, result: &str) {
        let line = format!("{}: {result} ({} s)", self.title, self.start.elapsed().as_secs());
        match self.show {
            Show::Bar(bar) => {
                bar.println(line);
                bar.finish_and_clear();
            }
            Show::Lines { sink, .. } => print(&sink, &line),
            Show::Nothing => {}
        }
    }
}

/// Decides when the next line is due.
#[derive(Default)]
struct Pace {
    /// Time of the last line, from the start of the step.
    last: Duration,
    percent: u64,
}

impl Pace {
    fn due(&mut self, now: Duration, percent: u64) -> bool {
        let silent = now.saturating_sub(self.last);
        let due = silent >= EVERY || (silent >= AT_MOST_EVERY && percent >= self.percent + EVERY_PERCENT);
        if due {
            *self = Pace { last: now, percent };
        }
        due
    }
}

fn print(sink: &Sink, line: &str) {
    // Failing to show progress must not stop the task.
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
    fn without_a_terminal_a_quick_step_prints_its_start_and_end() {
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
    fn without_a_terminal_a_quick_task_prints_nothing() {
        let text = Text::default();
        let mut task = Progress::lines(text.clone()).task("measured", 100);
        task.at(50, "50 bytes");
        drop(task);
        assert!(text.0.lock().unwrap().is_empty());
    }

    #[test]
    fn quiet_progress_accepts_any_numbers() {
        let mut step = Progress::quiet().step(1, 1, "x");
        step.phase("x", 1);
        step.advance(u64::MAX, "x");
        step.advance(u64::MAX, "x");
        step.done("x");
    }
}
