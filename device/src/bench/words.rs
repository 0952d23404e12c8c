//! Numbers of things in words.

/// `1 part`, `2 parts`, `35,000 parts`.
pub(super) fn counted(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{} {thing}s", count(number)) }
}

/// A number with thousands apart: `1,048,576`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!(counted(0, "part"), "0 parts");
        assert_eq!(counted(1, "part"), "1 part");
        assert_eq!(counted(1_048_576, "part"), "1,048,576 parts");
    }
}
