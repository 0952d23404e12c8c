//! Replaces values that vary between equal runs.
//!
//! Facts are normalised by field name: a value that is known to vary is replaced by a placeholder, if it has the expected
//! kind. Any other value stays, so that the snapshot differs. Addresses are not lost: an address in a device's window
//! becomes the window and the offset in it.

use std::ops::Range;

use serde_json::Value;

/// The kind of a value that varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varies {
    /// A physical address, which depends on the firmware.
    Address,
    /// A time or a duration.
    Time,
    /// Any whole number that the kernel hands out: a process, a file descriptor, an inode.
    Number,
}

/// Fields that vary wherever they appear, by their names in `cxl`, `daxctl` and the kernel's trace events.
const FIELDS: &[(&str, Varies)] = &[
    ("resource", Varies::Address),
    ("hpa", Varies::Address),
    ("hpa_alias0", Varies::Address),
    ("start", Varies::Address),
    ("hdr_timestamp", Varies::Time),
    ("overflow_ts", Varies::Time),
    ("time", Varies::Time),
    ("pid", Varies::Number),
];

/// Normalises a run's facts.
#[derive(Clone, Debug, Default)]
pub(super) struct Normaliser {
    /// The devices' windows, as the firmware placed them: host physical addresses.
    pub(super) windows: Vec<Range<u64>>,
}

impl Normaliser {
    /// Normalises the fields in [`FIELDS`] and in `more`, recursively.
    pub(super) fn value(&self, value: Value, more: &[(&str, Varies)]) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(|item| self.value(item, more)).collect(),
            Value::Object(map) => {
                let field = |(key, value): (String, Value)| {
                    let known = more.iter().chain(FIELDS).find(|(name, _)| *name == key);
                    let value = match known {
                        Some((_, varies)) => self.field(value, *varies),
                        None => self.value(value, more),
                    };
                    (key, value)
                };
                Value::Object(map.into_iter().map(field).collect())
            }
            other => other,
        }
    }

    fn field(&self, value: Value, varies: Varies) -> Value {
        let number = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => number(text),
            _ => None,
        };
        match (varies, number) {
            (Varies::Address, Some(address)) => self.address(address).into(),
            (Varies::Number, Some(_)) => "<number>".into(),
            (Varies::Time, _) if number.is_some() || value.is_f64() => "<time>".into(),
            _ => value,
        }
    }

    /// An address as an offset in a window.
    pub(super) fn address(&self, address: u64) -> String {
        // The kernel prints this for no address.
        if address == u64::MAX {
            return "none".to_owned();
        }
        match self.windows.iter().position(|window| window.contains(&address)) {
            Some(index) => format!("window {index} + {:#x}", address - self.windows[index].start),
            None => "<address>".to_owned(),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn normaliser() -> Normaliser {
        Normaliser { windows: vec![0xff_0000_0000..0xff_2000_0000, 0xff_4000_0000..0xff_6000_0000] }
    }

    #[test]
    fn an_address_becomes_its_window_and_offset() {
        let cxl = json!([{"region": "region0", "resource": 0xff_4000_1000_u64}, {"resource": "0xff00000000"}]);
        let expected = json!([{"region": "region0", "resource": "window 1 + 0x1000"}, {"resource": "window 0 + 0x0"}]);
        assert_eq!(normaliser().value(cxl, &[]), expected);
        assert_eq!(normaliser().value(json!({"hpa": 4096}), &[]), json!({"hpa": "<address>"}));
        assert_eq!(normaliser().value(json!({"hpa": "0xffffffffffffffff"}), &[]), json!({"hpa": "none"}));
    }

    #[test]
    fn a_field_of_an_unexpected_kind_stays() {
        let odd = json!({"hpa": "none", "hdr_timestamp": null, "pid": -1});
        assert_eq!(normaliser().value(odd.clone(), &[]), odd);
    }

    #[test]
    fn the_fields_of_a_scenario_take_precedence() {
        let value = json!({"latency": 1.5, "pid": 7, "inner": {"latency": 9}});
        let own = [("latency", Varies::Time), ("pid", Varies::Address)];
        let expected = json!({"latency": "<time>", "pid": "<address>", "inner": {"latency": "<time>"}});
        assert_eq!(normaliser().value(value, &own), expected);
    }

    #[test]
    fn other_fields_stay() {
        let value = json!({"size": 268_435_456, "interleave_ways": 1, "targets": [{"port_id": 0}]});
        assert_eq!(normaliser().value(value.clone(), &[]), value);
    }
}
