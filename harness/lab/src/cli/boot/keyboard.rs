//! Filters the user's keys on their way to the guest. Ctrl-A is the escape key, as in QEMU: Ctrl-A x ends the guest, and
//! Ctrl-A Ctrl-A sends one Ctrl-A.

/// Ctrl-A.
const ESCAPE: u8 = 0x01;
/// Ctrl-D: at the beginning of a line, end of file for the terminal's reader.
pub(super) const END: u8 = 0x04;

/// The state of the escape key.
#[derive(Debug, Default)]
pub(super) struct Keyboard {
    escaped: bool,
}

impl Keyboard {
    /// The keys to pass on to the guest; none if the user ended it.
    pub(super) fn typed(&mut self, keys: &[u8]) -> Option<Vec<u8>> {
        let mut passed = Vec::with_capacity(keys.len());
        for &key in keys {
            match (std::mem::take(&mut self.escaped), key) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x') => return None,
                (true, ESCAPE) | (false, _) => passed.push(key),
                (true, _) => passed.extend([ESCAPE, key]),
            }
        }
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_escape_reaches_the_guest() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.typed(b"ls\r\x03\x04").unwrap(), b"ls\r\x03\x04");
        assert_eq!(keyboard.typed(b"\x01\x01").unwrap(), b"\x01");
        assert_eq!(keyboard.typed(b"\x01b").unwrap(), b"\x01b");
    }

    #[test]
    fn the_escape_and_x_may_arrive_separately() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.typed(b"x\x01").unwrap(), b"x");
        assert_eq!(keyboard.typed(b"x"), None);
    }
}
