//! What is typed, on its way to the guest. Ctrl-A is the key that the guest does not get, as in QEMU: `x` after it ends
//! the guest, a second one is a Ctrl-A for the guest.

/// Ctrl-A.
const ESCAPE: u8 = 0x01;
/// Ctrl-D: at the beginning of a line, the end of what a terminal's reader gets.
pub(super) const END: u8 = 0x04;

/// What becomes of keys.
#[derive(Debug, Default)]
pub(super) struct Keyboard {
    escaped: bool,
}

impl Keyboard {
    /// What the guest gets of these keys; none when they end it.
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
    fn the_escape_and_x_may_come_one_by_one() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.typed(b"x\x01").unwrap(), b"x");
        assert_eq!(keyboard.typed(b"x"), None);
    }
}
