//! Parses and formats sizes for the command line and the control socket.

/// Parses bytes: `100663296`, `96M`, `96MiB`, `1.5G`, `100MB`.
///
/// As in GNU's tools, K, M, G and T are binary, like KiB to TiB (M = MiB = 1048576), and KB to TB are decimal
/// (MB = 1000000).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    // Refuse "1e3": an exponent is more likely a typo than a size.
    let plain = text.contains(|c: char| c.is_ascii_digit()) && !text.contains(['e', 'E', '-', '+']);
    let config = parse_size::Config::new();
    let config = if is_decimal(text) { config.with_decimal() } else { config.with_binary() };
    plain.then(|| config.parse_size(text).ok()).flatten().ok_or_else(|| {
        format!("{text:?} is not a size; give bytes, or a number with K, M, G or T such as 96M (MB is 1000000 bytes)")
    })
}

/// Whether the unit is KB, MB, GB or the like.
fn is_decimal(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    matches!(unit.as_bytes(), [b'k' | b'K' | b'm' | b'M' | b'g' | b'G' | b't' | b'T' | b'p' | b'P', b'b' | b'B'])
}

/// Formats bytes in binary units, rounded to a tenth. Only exact numbers have no decimal: `512 MiB`, `1.5 GiB`, `4095 B`,
/// and `4.0 MiB` for one byte less than `4 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 6] = [(10, "KiB"), (20, "MiB"), (30, "GiB"), (40, "TiB"), (50, "PiB"), (60, "EiB")];
    let tenths = |shift: u32| (u128::from(bytes) * 10 + (1 << (shift - 1))) >> shift;
    let too_large = |shift: u32| tenths(shift) >= 10_240 && shift < 60;
    // The first unit with less than 1024 after rounding: 1048575 bytes are 1.0 MiB, not 1024.0 KiB.
    let unit = UNITS.into_iter().find(|(shift, _)| !too_large(*shift));
    match unit {
        Some((shift, unit)) if bytes >= 1024 => match tenths(shift) {
            _ if bytes.trailing_zeros() >= shift => format!("{} {unit}", bytes >> shift),
            tenths => format!("{}.{} {unit}", tenths / 10, tenths % 10),
        },
        _ => format!("{bytes} B"),
    }
}

/// Formats bytes for [`parse_bytes`], short and exact: `4K`, `256G`, `1000`.
pub fn exact_bytes(bytes: u64) -> String {
    [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_binary_except_kb_to_tb() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4K", 4096),
            ("4k", 4096),
            ("96M", 96 << 20),
            ("96MiB", 96 << 20),
            ("96 MiB", 96 << 20),
            ("96MB", 96_000_000),
            ("96 MB", 96_000_000),
            ("1.5gb", 1_500_000_000),
            ("1kB", 1000),
            ("2TB", 2_000_000_000_000),
            ("512B", 512),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn an_invalid_size_is_refused_with_an_example() {
        for text in
            ["", " ", "M", "96Q", "-1", "1e3", "1E3", "0x1000", "ninety", "18446744073709551616", "16E", "1M1", "96%"]
        {
            let error = parse_bytes(text).unwrap_err();
            assert!(error.contains("96M"), "{text}: {error}");
        }
    }

    #[test]
    fn bytes_are_written_short_and_rounded() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1 << 29, "512 MiB"),
            (3 << 29, "1.5 GiB"),
            ((4 << 20) - 1, "4.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (960 << 10, "960 KiB"),
            ((983 << 10) + 1, "983.0 KiB"),
            (1023 << 10, "1023 KiB"),
            (parse_bytes("1.3G").unwrap(), "1.3 GiB"),
            ((512 << 20) / 5, "102.4 MiB"),
            ((1 << 30) + (1 << 20), "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }

    #[test]
    fn exact_sizes_parse_back_unchanged() {
        for (bytes, text) in [(0, "0"), (1000, "1000"), (4096, "4K"), (3 << 29, "1536M"), (1 << 38, "256G")] {
            assert_eq!(exact_bytes(bytes), text);
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
    }
}
