//! What the kernel's CXL trace events say, taken apart.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// The fields of a trace line: `key=value` words after the event's name, values in quotes or without.
pub(super) fn fields(line: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut rest = line;
    while let Some(equals) = rest.find('=') {
        let key = rest[..equals].rsplit([' ', ':']).next().unwrap_or_default();
        let value = &rest[equals + 1..];
        let (value, after) = match value.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').unwrap_or((quoted, "")),
            None => value.split_at(value.find(' ').unwrap_or(value.len())),
        };
        fields.insert(key.to_owned(), Value::from(value.trim_end_matches(':')));
        rest = after;
    }
    fields
}

/// What the kernel's poison list came to.
#[derive(Debug, Default)]
pub struct PoisonList {
    /// Records.
    pub records: usize,
    /// Bytes of all records.
    pub bytes: u64,
    /// Every source named, sorted.
    pub sources: BTreeSet<String>,
}

impl PoisonList {
    /// Adds a `cxl_poison` trace line.
    pub(super) fn add(&mut self, line: &str) -> Result<()> {
        let fields = fields(line);
        let text = |key: &str| fields.get(key).and_then(Value::as_str).with_context(|| format!("no {key} in {line}"));
        let length = u64::from_str_radix(text("dpa_length")?.trim_start_matches("0x"), 16)?;
        self.records += 1;
        self.bytes += length;
        self.sources.insert(text("source")?.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_and_without_quotes() {
        let line = "irq/30-pci-0-92 [001] ..... 4.2: cxl_memory_module: memdev=mem0 host=0000:0d:00.0 serial=1: log=Warning : \
                    event_type='Health Status Change' health_status='' media_status='Normal' device_temp=25";
        let fields = fields(line);
        assert_eq!(fields["log"], "Warning");
        assert_eq!(fields["serial"], "1");
        assert_eq!(fields["event_type"], "Health Status Change");
        assert_eq!(fields["health_status"], "");
        assert_eq!(fields["device_temp"], "25");
    }

    #[test]
    fn a_poison_list_sums_its_records() {
        let mut list = PoisonList::default();
        for source in ["Injected", "Internal", "Internal"] {
            let line = format!("x: cxl_poison: trace_type=List dpa=0x40 dpa_length=0x40 source={source} flags=");
            list.add(&line).unwrap();
        }
        assert_eq!((list.records, list.bytes), (3, 192));
        assert_eq!(list.sources.len(), 2);
        assert!(list.add("x: cxl_poison: dpa=0x40").is_err());
    }
}
