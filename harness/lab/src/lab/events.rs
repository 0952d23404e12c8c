//! Parses the kernel's CXL trace events.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// Fields that some events print in hex without a prefix.
const HEX: &[&str] = &["dpa", "hpa"];

/// The fields of a trace line: `key=value` after the event's name, with or without quotes, of one word or more. Text
/// without a key after them becomes the field `said`.
pub(super) fn fields(line: &str) -> Map<String, Value> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for word in line.split_whitespace().skip_while(|word| !word.contains('=')) {
        match (word.split_once('='), fields.last_mut()) {
            (Some((key, value)), _) if HEX.contains(&key) && !value.starts_with("0x") => {
                fields.push((key, format!("0x{value}")));
            }
            (Some((key, value)), _) => fields.push((key, value.to_owned())),
            (None, _) if word == ":" => fields.push(("said", String::new())),
            // Some events have `key: 'value'`.
            (None, _) if word.ends_with(':') => fields.push((word.trim_end_matches(':'), String::new())),
            (None, Some((_, value))) if value.is_empty() => word.clone_into(value),
            (None, Some((_, value))) => *value = format!("{value} {word}"),
            (None, None) => {}
        }
    }
    let plain = |value: String| Value::from(value.trim_end_matches(':').trim_matches('\''));
    let said = fields.into_iter().filter(|(key, value)| *key != "said" || !value.is_empty());
    said.map(|(key, value)| (key.to_owned(), plain(value))).collect()
}

/// The totals of the kernel's poison list.
#[derive(Debug, Default)]
pub struct PoisonList {
    /// Records.
    pub records: usize,
    /// Bytes of all records.
    pub bytes: u64,
    /// Every source named, sorted.
    pub sources: BTreeSet<String>,
    /// Whether the device reported more poison than the list holds.
    pub overflowed: bool,
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
        self.overflowed |= text("flags")?.contains("Overflow");
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
    fn a_field_may_have_several_words_and_hex_gets_its_prefix() {
        let line = "irq/31-pci-9 [000] ..... 4.9: cxl_dram: memdev=mem0 log=Warning : time=17 flags='A | 0x1' : \
                    dpa=200000 dpa_flags='VOLATILE' cor_mask=01 00 02 validity_flags='BANK GROUP|ROW' hpa=fec0200000 region=";
        let fields = fields(line);
        assert_eq!(fields["flags"], "A | 0x1");
        assert_eq!(fields["dpa"], "0x200000");
        assert_eq!(fields["hpa"], "0xfec0200000");
        assert_eq!(fields["cor_mask"], "01 00 02");
        assert_eq!(fields["validity_flags"], "BANK GROUP|ROW");
        assert_eq!(fields["region"], "");
        assert!(!fields.contains_key("said"));
    }

    #[test]
    fn text_without_a_key_has_the_field_said() {
        let fields =
            fields("sh-1 [000] ..... 4.9: cxl_overflow: memdev=mem0 serial=7: log=Fatal : 4 records from 1 to 2");
        assert_eq!(fields["serial"], "7");
        assert_eq!(fields["said"], "4 records from 1 to 2");
    }

    #[test]
    fn a_key_may_end_in_a_colon() {
        let fields =
            fields("irq/24-1 [000] .. 1.6: cxl_aer_uncorrectable_error: serial=7: status: 'A | B' first_error: 'A'");
        assert_eq!(
            (&fields["serial"], &fields["status"], &fields["first_error"]),
            (&"7".into(), &"A | B".into(), &"A".into())
        );
    }

    #[test]
    fn a_poison_list_sums_its_records() {
        let mut list = PoisonList::default();
        for (source, flags) in [("Injected", ""), ("Internal", "Overflow|More"), ("Internal", "")] {
            let line = format!("x: cxl_poison: trace_type=List dpa=0x40 dpa_length=0x40 source={source} flags={flags}");
            list.add(&line).unwrap();
        }
        assert_eq!((list.records, list.bytes), (3, 192));
        assert_eq!((list.sources.len(), list.overflowed), (2, true));
        assert!(list.add("x: cxl_poison: dpa=0x40").is_err());
    }
}
