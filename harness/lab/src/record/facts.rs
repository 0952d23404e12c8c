//! The findings of a scenario: facts for the snapshot, figures for the reader.
//!
//! A *fact* must be the same in every run on the same kernel: it goes into the snapshot, normalised.
//! A *figure* is measured and varies (times, ratios, sizes after compression): it is reported, and bounded by a
//! check where a bound is promised.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::Value;

/// Facts in the order in which the scenario records them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts(Vec<(String, Value)>);

impl Facts {
    /// Adds a fact. The same name twice makes two entries, so a repeated step shows.
    pub fn push(&mut self, name: &str, value: Value) {
        self.0.push((name.to_owned(), value));
    }

    /// Whether there is no fact.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Facts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("facts by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Facts, A::Error> {
                let mut facts = Facts::default();
                while let Some(entry) = map.next_entry()? {
                    facts.0.push(entry);
                }
                Ok(facts)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// One measured figure for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The value with its unit.
    pub value: String,
}

/// Keeps the named keys of a JSON value, in this order, recursively through arrays. A missing key becomes null, so that a
/// field that vanishes shows.
pub fn pick(value: &Value, keys: &[&str]) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| pick(item, keys)).collect(),
        Value::Object(map) => {
            Value::Object(keys.iter().map(|&key| (key.to_owned(), map.get(key).cloned().unwrap_or_default())).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn picking_keeps_the_order_asked_for_and_shows_what_is_missing() {
        let picked = pick(&json!([{"a": 1, "b": 2, "c": 3}]), &["c", "x", "a"]);
        assert_eq!(picked.to_string(), r#"[{"c":3,"x":null,"a":1}]"#);
    }
}
