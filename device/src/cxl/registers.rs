//! Register maps that read like a datasheet.
//!
//! A [`RegisterMap`] is a block of little-endian registers: each line of its builder gives an offset, a reset value and
//! which bits software may change. Accesses of any length and alignment are resolved here, byte by byte. What a write
//! *does* is not in the table: the owner asks which registers were touched and acts after the write.
//!
//! A map stores values. Blocks whose values are computed when they are read (the mailbox, the device registers) have no
//! map: they copy each register into the read with `layout::copy_overlap`.

/// A block of registers.
///
/// ```
/// use cxl_cram_device::cxl::registers::RegisterMap;
///
/// const CAPABILITY: usize = 0x0;
/// const CONTROL: usize = 0x4;
/// const STATUS: usize = 0x6;
///
/// let mut map = RegisterMap::new(0x8)
///     .ro32(CAPABILITY, 0x1234_5678)
///     .rw16(CONTROL, 0x8000, 0x00ff)
///     .w1c16(STATUS, 0x0003);
///
/// map.set16(STATUS, 0x0003);
/// let touched = map.write(0x4, &[0x01, 0x7f, 0x01]);
/// assert!(touched.hits(CONTROL, 2));
/// assert_eq!(map.get16(CONTROL), 0x8001);
/// assert_eq!(map.get16(STATUS), 0x0002);
/// map.reset();
/// assert_eq!(map.get16(CONTROL), 0x8000);
/// ```
#[derive(Clone, Debug)]
pub struct RegisterMap {
    bytes: Vec<RegisterByte>,
}

/// One byte of a register and what software may do to its bits.
#[derive(Clone, Copy, Debug, Default)]
struct RegisterByte {
    value: u8,
    reset: u8,
    /// Bits software may set and clear.
    rw: u8,
    /// Bits software clears by writing 1.
    w1c: u8,
    /// While true, software changes nothing here.
    frozen: bool,
}

impl RegisterByte {
    fn write(&mut self, data: u8) {
        if !self.frozen {
            self.value = (self.value & !self.rw) | (data & self.rw);
            self.value &= !(data & self.w1c);
        }
    }
}

/// The bytes a write covered.
#[derive(Clone, Copy, Debug)]
#[must_use = "a register that acts on a write has to be looked for"]
pub struct Touched {
    start: usize,
    end: usize,
}

impl Touched {
    /// Whether any byte of the register at `offset`, `width` bytes wide, was written.
    pub fn hits(&self, offset: usize, width: usize) -> bool {
        self.start < offset.saturating_add(width) && offset < self.end
    }

    /// Whether all of the register was written: for mailboxes that take whole values only.
    pub fn covers(&self, offset: usize, width: usize) -> bool {
        self.start <= offset && offset.saturating_add(width) <= self.end
    }
}

macro_rules! register_width {
    ($int:ty, $ro:ident, $rw:ident, $w1c:ident, $get:ident, $set:ident) => {
        #[doc = concat!("A read-only `", stringify!($int), "`.")]
        pub fn $ro(self, offset: usize, value: $int) -> Self {
            self.define(offset, &value.to_le_bytes(), &[], &[])
        }

        #[doc = concat!("A `", stringify!($int), "` of which software may change the bits in `mask`.")]
        pub fn $rw(self, offset: usize, reset: $int, mask: $int) -> Self {
            self.define(offset, &reset.to_le_bytes(), &mask.to_le_bytes(), &[])
        }

        #[doc = concat!("A `", stringify!($int), "`, 0 at reset, whose bits in `mask` software clears by writing 1.")]
        pub fn $w1c(self, offset: usize, mask: $int) -> Self {
            self.define(offset, &(0 as $int).to_le_bytes(), &[], &mask.to_le_bytes())
        }

        #[doc = concat!("The `", stringify!($int), "` at an offset; bytes past the end are 0.")]
        pub fn $get(&self, offset: usize) -> $int {
            let mut bytes = [0; size_of::<$int>()];
            self.read(offset, &mut bytes);
            <$int>::from_le_bytes(bytes)
        }

        #[doc = concat!("Sets the `", stringify!($int), "` at an offset from the device's side: masks do not apply.")]
        pub fn $set(&mut self, offset: usize, value: $int) {
            for (byte, data) in self.bytes.iter_mut().skip(offset).zip(value.to_le_bytes()) {
                byte.value = data;
            }
        }
    };
}

impl RegisterMap {
    /// A block of `size` bytes, all reserved: they read 0 and ignore writes.
    pub fn new(size: usize) -> Self {
        Self { bytes: vec![RegisterByte::default(); size] }
    }

    register_width!(u8, ro8, rw8, w1c8, get8, set8);
    register_width!(u16, ro16, rw16, w1c16, get16, set16);
    register_width!(u32, ro32, rw32, w1c32, get32, set32);
    register_width!(u64, ro64, rw64, w1c64, get64, set64);

    /// Gives bytes their reset value and masks; a missing mask is 0.
    ///
    /// # Panics
    /// When the register lies outside the block: the table is wrong.
    fn define(mut self, offset: usize, reset: &[u8], rw: &[u8], w1c: &[u8]) -> Self {
        let bytes = &mut self.bytes[offset..][..reset.len()];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let mask = |m: &[u8]| m.get(i).copied().unwrap_or(0);
            *byte = RegisterByte { value: reset[i], reset: reset[i], rw: mask(rw), w1c: mask(w1c), frozen: false };
        }
        self
    }

    /// Bytes in the block.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the block has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Software reads. Bytes past the end read 0.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        for (out, byte) in data.iter_mut().zip(self.bytes.iter().skip(offset)) {
            *out = byte.value;
        }
    }

    /// Software writes. Bytes past the end are ignored.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> Touched {
        for (byte, data) in self.bytes.iter_mut().skip(offset).zip(data) {
            byte.write(*data);
        }
        Touched { start: offset, end: offset.saturating_add(data.len()) }
    }

    /// Makes `width` bytes read-only for software until [`Self::thaw`] or [`Self::reset`]: lock bits.
    pub fn freeze(&mut self, offset: usize, width: usize) {
        self.set_frozen(offset, width, true);
    }

    /// Ends [`Self::freeze`].
    pub fn thaw(&mut self, offset: usize, width: usize) {
        self.set_frozen(offset, width, false);
    }

    fn set_frozen(&mut self, offset: usize, width: usize, frozen: bool) {
        for byte in self.bytes.iter_mut().skip(offset).take(width) {
            byte.frozen = frozen;
        }
    }

    /// Every register back to its reset value, nothing frozen.
    pub fn reset(&mut self) {
        self.reset_range(0, self.bytes.len());
    }

    /// [`Self::reset`] for `width` bytes from `offset`.
    pub fn reset_range(&mut self, offset: usize, width: usize) {
        for byte in self.bytes.iter_mut().skip(offset).take(width) {
            byte.value = byte.reset;
            byte.frozen = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map() -> RegisterMap {
        RegisterMap::new(0x10).ro32(0x0, 0x1111_2222).rw32(0x4, 0xf0, 0x0000_ff0f).w1c32(0x8, 0xff).rw16(0xe, 1, 0xffff)
    }

    #[test]
    fn a_write_changes_only_the_bits_software_may_change() {
        let mut map = map();
        let _ = map.write(0, &[0xff; 12]);
        assert_eq!(map.get32(0), 0x1111_2222);
        assert_eq!(map.get32(4), 0x0000_ffff);
        let _ = map.write(4, &[0; 4]);
        assert_eq!(map.get32(4), 0xf0);
    }

    #[test]
    fn writing_one_clears_and_writing_zero_keeps() {
        let mut map = map();
        map.set32(8, 0x0f);
        let _ = map.write(8, &[0x05]);
        assert_eq!(map.get32(8), 0x0a);
    }

    #[test]
    fn an_access_may_start_and_end_inside_registers() {
        let mut map = map();
        let touched = map.write(3, &[0xaa, 0xbb, 0xcc]);
        assert!(touched.hits(0, 4) && touched.hits(4, 4) && !touched.hits(8, 4));
        assert!(touched.covers(4, 2) && !touched.covers(4, 4) && !touched.covers(2, 2));
        let mut data = [0; 3];
        map.read(3, &mut data);
        assert_eq!(data, [0x11, 0xfb, 0xcc]);
    }

    #[test]
    fn past_the_end_reads_zero_and_ignores_writes() {
        let mut map = map();
        let _ = map.write(0xf, &[0x55; 8]);
        let mut data = [0xee; 4];
        map.read(0xe, &mut data);
        assert_eq!(data, [0x01, 0x55, 0, 0]);
        map.read(usize::MAX, &mut data);
        assert_eq!(data, [0; 4]);
        assert_eq!(map.get32(0x100), 0);
    }

    #[test]
    fn frozen_registers_ignore_software_until_thawed_or_reset() {
        let mut map = map();
        map.freeze(4, 4);
        let _ = map.write(4, &[0x0f]);
        assert_eq!(map.get8(4), 0xf0);
        map.thaw(4, 4);
        let _ = map.write(4, &[0x0f]);
        assert_eq!(map.get8(4), 0xff);
        map.freeze(4, 4);
        map.reset();
        let _ = map.write(4, &[0x01]);
        assert_eq!(map.get8(4), 0xf1);
    }

    proptest! {
        #[test]
        fn one_long_write_is_the_same_as_its_bytes(offset in 0usize..0x14, data in prop::collection::vec(any::<u8>(), 0..20)) {
            let (mut whole, mut split) = (map(), map());
            let _ = whole.write(offset, &data);
            for (i, byte) in data.iter().enumerate() {
                let _ = split.write(offset + i, &[*byte]);
            }
            for i in 0..0x10 {
                prop_assert_eq!(whole.get8(i), split.get8(i));
            }
        }
    }
}
