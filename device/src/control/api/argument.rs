//! Arguments that have more than one form: sizes and thresholds, as numbers or as people write them.

use std::fmt;

use cxl_cram_kit::size::parse_bytes;
use serde::{
    Deserializer,
    de::{Error, Visitor},
};

use crate::hdm::media::Threshold;

/// Bytes: a whole number, or a size such as `"96M"`.
pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_any(NumberOr {
        expected: "bytes, or a size such as \"96M\"",
        number: |bytes| Ok(bytes),
        text: |text| parse_bytes(text),
    })
}

/// As [`size`], for an argument that may be left out.
pub(super) fn some_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    size(from).map(Some)
}

/// `true` or `false`.
pub(super) fn true_or_false<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    struct Bool;
    impl Visitor<'_> for Bool {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }
    }
    from.deserialize_bool(Bool)
}

/// Thresholds: bytes, a size such as `"96M"`, or a percentage such as `"20%"`.
pub(super) mod threshold {
    use serde::Serializer;

    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Threshold, D::Error> {
        from.deserialize_any(NumberOr {
            expected: "bytes, a size such as \"96M\", or a percentage such as \"20%\"",
            number: Threshold::of_bytes,
            text: str::parse,
        })
    }

    pub(crate) fn serialize<S: Serializer>(threshold: &Threshold, to: S) -> Result<S::Ok, S::Error> {
        match threshold {
            Threshold::Bytes(bytes) => to.serialize_u64(*bytes),
            Threshold::Percent(percent) => to.collect_str(&format_args!("{percent}%")),
        }
    }
}

/// Reads a number or a string.
struct NumberOr<T> {
    expected: &'static str,
    number: fn(u64) -> Result<T, String>,
    text: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for NumberOr<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.number)(number).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(E::custom)
    }
}
