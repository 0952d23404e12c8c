//! What the chart shows of a tier.

use anyhow::{Result, bail};
use cxl_cram_guest::protocol::{Call, Reply};

use super::{Adapter, Cram, CramCounts, CramEvent};
use crate::guest::{client::Guest, trace::Trace};

/// Reads the figures of a tier, by the names of their series, as often as it is called. The pressure's are those of every change
/// since the last time, too: it may rise and fall between two looks, and that is what one looks for.
pub(super) fn figures(
    guest: Guest,
    cram: &Cram,
    device: usize,
) -> impl FnMut() -> Result<Vec<(String, f64)>> + Send + use<> {
    let (adapter, node, path) = (cram.adapter, cram.node, cram.file());
    let mut changes = None;
    move || {
        let changes = match &mut changes {
            Some(changes) => changes,
            none => none.insert(Changes::start(&guest, adapter, node)?),
        };
        let mut figures = changes.since_last();
        figures.extend(now(&adapter.counts(&read(&guest, &path)?)?));
        Ok(figures.into_iter().map(|(name, value)| (of_device(name, device), value)).collect())
    }
}

const PRESSURE: &str = "pressure";

/// The changes of a node's pressure.
struct Changes {
    adapter: &'static dyn Adapter,
    node: u32,
    trace: Trace,
    /// Lines of the trace that were looked at.
    seen: usize,
}

impl Changes {
    fn start(guest: &Guest, adapter: &'static dyn Adapter, node: u32) -> Result<Self> {
        let trace = guest.trace(&format!("chart-{node}"), &[adapter.event(CramEvent::Pressure)])?;
        Ok(Self { adapter, node, trace, seen: 0 })
    }

    fn since_last(&mut self) -> Vec<(&'static str, f64)> {
        let lines = self.trace.lines();
        let new = lines.get(self.seen..).unwrap_or_default();
        let changes = new.iter().filter_map(|line| self.adapter.pressure_change(line, self.node));
        let points = changes.flatten().map(|pressure| (PRESSURE, pressure as f64)).collect();
        self.seen = lines.len();
        points
    }
}

/// What there is now.
fn now(counts: &CramCounts) -> [(&'static str, f64); 6] {
    let pages = |count: u64| count as f64 / 1000.0;
    [
        (PRESSURE, counts.pressure as f64),
        ("1000 pages: on the tier", pages(counts.used_pages)),
        ("1000 pages: demoted", pages(counts.demoted + counts.moved_in)),
        ("1000 pages: promoted", pages(counts.promoted + counts.copied)),
        ("1000 pages: refused", pages(counts.refused)),
        ("1000 pages: to swap", pages(counts.evicted)),
    ]
}

/// The series of that name for a device: those of the first have the plain names, others panels of their own.
fn of_device(name: &str, device: usize) -> String {
    match (device, name.split_once(": ")) {
        (0, _) => name.to_owned(),
        (_, Some((panel, line))) => format!("{panel}, device {device}: {line}"),
        (_, None) => format!("{name}, device {device}"),
    }
}

fn read(guest: &Guest, path: &str) -> Result<String> {
    let call = Call::ReadFile { path: path.to_owned(), limit: None };
    match guest.call(path, call, super::SAMPLE_LIMIT)? {
        Reply::File { data, .. } => Ok(data.text().into_owned()),
        other => bail!("it answered {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_device_has_panels_of_its_own() {
        assert_eq!(of_device("pressure", 0), "pressure");
        assert_eq!(of_device("pressure", 1), "pressure, device 1");
        assert_eq!(of_device("1000 pages: refused", 1), "1000 pages, device 1: refused");
    }
}
