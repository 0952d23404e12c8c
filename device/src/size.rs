//! Sizes as people write them, on the command line and on the control socket.

/// Parses bytes: `100663296`, `96M`, `96MiB`, `1.5G`. K, M, G and T are binary (M = 1048576).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    // Not "1e3": an exponent is more likely a slip than a size.
    let plain = text.contains(|c: char| c.is_ascii_digit()) && !text.contains(['e', 'E', '-', '+']);
    plain
        .then(|| parse_size::Config::new().with_binary().parse_size(text).ok())
        .flatten()
        .ok_or_else(|| format!("{text:?} is not a size; give bytes, or a number with K, M, G or T such as 96M"))
}

/// Bytes for people, binary and exact where that is short: `512 MiB`, `1.5 GiB`, `4095 B`, `3.9 MiB` (rounded down).
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 6] = [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = UNITS.into_iter().find(|(shift, _)| bytes >> shift != 0) else {
        return format!("{bytes} B");
    };
    let (whole, rest) = (bytes >> shift, bytes & ((1 << shift) - 1));
    match (u128::from(rest) * 10) >> shift {
        0 => format!("{whole} {unit}"),
        tenths => format!("{whole}.{tenths} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_binary_and_may_be_written_in_full() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4K", 4096),
            ("4k", 4096),
            ("96M", 96 << 20),
            ("96MiB", 96 << 20),
            ("96 MB", 96 << 20),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_an_example() {
        for text in
            ["", " ", "M", "96Q", "-1", "1e3", "1E3", "0x1000", "ninety", "18446744073709551616", "16E", "1M1", "96%"]
        {
            let error = parse_bytes(text).unwrap_err();
            assert!(error.contains("96M"), "{text}: {error}");
        }
    }

    #[test]
    fn bytes_are_written_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1 << 29, "512 MiB"),
            (3 << 29, "1.5 GiB"),
            ((4 << 20) - 1, "3.9 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }
}
