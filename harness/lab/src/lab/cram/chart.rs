//! A tier's figures for the chart.

use anyhow::{Result, bail};
use cxl_cram_wire::protocol::{Call, Reply};

use super::{Adapter, Cram, CramCounts, CramEvent};
use crate::guest::client::Guest;
use crate::guest::trace::Trace;

/// Returns a function that reads a tier's figures, by series. It also returns every change of the pressure since the last call:
/// a rise and fall between two readings is what the chart must show.
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
    /// Number of trace lines already processed.
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

/// The present figures.
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

/// The series' name for a device: plain for the first, with its own panel for any other.
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
        other => bail!("unexpected answer of the guest's agent: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_device_has_its_own_panels() {
        assert_eq!(of_device("pressure", 0), "pressure");
        assert_eq!(of_device("pressure", 1), "pressure, device 1");
        assert_eq!(of_device("1000 pages: refused", 1), "1000 pages, device 1: refused");
    }
}
