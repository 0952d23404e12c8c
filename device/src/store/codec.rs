//! The codecs: block in, payload out, and back. State is kept per thread, so nothing is allocated on the path.
//!
//! Payloads carry no length of their own; the block map has it. zstd frames are magicless, without content size,
//! checksum or dictionary id.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat, ResetDirective};

use super::entry::Form;
use super::slab::STEP;
use super::{BLOCK_SIZE, Codec};

/// A codec name that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No codec of that name.
    #[error("unknown codec '{0}': use lz4, zstd, zstd:LEVEL, adaptive or adaptive:LEVEL")]
    Unknown(String),
    /// The level is not a number that zstd knows.
    #[error("zstd has no level '{level}': use a whole number from {min} to {max}")]
    Level {
        /// What was given.
        level: String,
        /// zstd's lowest (fastest) level.
        min: i32,
        /// zstd's highest level.
        max: i32,
    },
}

impl FromStr for Codec {
    type Err = CodecError;

    fn from_str(name: &str) -> Result<Self, CodecError> {
        let (codec, level): (fn(i32) -> Self, _) = match name.split_once(':') {
            None if name == "lz4" => return Ok(Self::Lz4),
            None if name == "zstd" => return Ok(Self::Zstd(1)),
            None if name == "adaptive" => return Ok(Self::Adaptive(3)),
            Some(("zstd", level)) => (Self::Zstd, level),
            Some(("adaptive", level)) => (Self::Adaptive, level),
            _ => return Err(CodecError::Unknown(name.into())),
        };
        let (min, max) = (zstd_safe::min_c_level(), zstd_safe::max_c_level());
        match level.parse() {
            Ok(level) if (min..=max).contains(&level) => Ok(codec(level)),
            _ => Err(CodecError::Level { level: level.into(), min, max }),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
            Self::Adaptive(level) => write!(f, "adaptive:{level}"),
        }
    }
}

/// The codec state of one thread, for blocks of one size. The store's are [`BLOCK_SIZE`]; `bench` measures others too.
pub(crate) struct Engine {
    /// A payload. As long as either codec may write for a block that does not shrink: lz4 has the larger bound.
    buffer: Box<[u8]>,
    lz4: CompressTable,
    zstd: Option<(i32, CCtx<'static>)>,
    unzstd: Option<DCtx<'static>>,
}

/// Runs `f` with this thread's engine. Must not be nested.
pub(super) fn with<R>(f: impl FnOnce(&mut Engine) -> R) -> R {
    thread_local! {
        static ENGINE: RefCell<Engine> = RefCell::new(Engine::new(BLOCK_SIZE));
    }
    ENGINE.with_borrow_mut(f)
}

impl Engine {
    /// For blocks of this size. Contexts of zstd are made when they are first needed.
    pub(crate) fn new(block_size: usize) -> Self {
        Self {
            buffer: vec![0; get_maximum_output_size(block_size)].into(),
            lz4: CompressTable::small(),
            zstd: None,
            unzstd: None,
        }
    }

    /// Makes what a codec needs. None if zstd has no memory for it: blocks are then stored raw.
    pub(crate) fn prepare(&mut self, codec: Codec) -> Option<()> {
        match codec {
            Codec::Lz4 | Codec::Adaptive(_) => Some(()),
            Codec::Zstd(level) => {
                self.compressor(level)?;
                decompressor(&mut self.unzstd).map(drop)
            }
        }
    }

    /// Compresses a new block. The payload, or the block itself if it does not shrink: a payload must leave the size class
    /// of raw blocks.
    pub(crate) fn pack<'a>(&'a mut self, codec: Codec, block: &'a [u8]) -> (Form, &'a [u8]) {
        let (form, packed) = match codec {
            Codec::Lz4 | Codec::Adaptive(_) => {
                (Form::Lz4, compress_into_with_table(block, &mut self.buffer, &mut self.lz4).ok())
            }
            Codec::Zstd(level) => (Form::Zstd, self.pack_zstd(level, block)),
        };
        match packed {
            Some(len) if len > 0 && len + STEP <= block.len() => (form, &self.buffer[..len]),
            _ => (Form::Raw, block),
        }
    }

    fn pack_zstd(&mut self, level: i32, block: &[u8]) -> Option<usize> {
        self.compressor(level)?;
        let (_, context) = self.zstd.as_mut()?;
        context.compress2(&mut self.buffer[..], block).ok()
    }

    /// Makes a compression context that writes the store's frames: no magic, no size, no checksum, no dictionary id.
    fn compressor(&mut self, level: i32) -> Option<()> {
        if self.zstd.as_ref().is_some_and(|(current, _)| *current == level) {
            return Some(());
        }
        let mut context = match self.zstd.take() {
            Some((_, context)) => context,
            None => CCtx::try_create()?,
        };
        context.reset(ResetDirective::SessionAndParameters).ok()?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::Format(FrameFormat::Magicless),
            CParameter::ContentSizeFlag(false),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            context.set_parameter(parameter).ok()?;
        }
        self.zstd = Some((level, context));
        Some(())
    }

    /// The buffer that [`Engine::unpack`] reads from, for a payload of `len` bytes, at most a block.
    pub(super) fn payload(&mut self, len: usize) -> &mut [u8] {
        &mut self.buffer[..len]
    }

    /// Decompresses the first `len` bytes of the buffer, where the last payload is. None if that does not make one whole
    /// block.
    pub(crate) fn unpack(&mut self, form: Form, len: usize, block: &mut [u8]) -> Option<()> {
        let unpacked = match form {
            Form::Lz4 => decompress_into(self.buffer.get(..len)?, block).ok()?,
            Form::Zstd => decompressor(&mut self.unzstd)?.decompress(block, self.buffer.get(..len)?).ok()?,
            Form::Raw => {
                block.copy_from_slice(self.buffer.get(..len)?.get(..block.len())?);
                block.len()
            }
        };
        (unpacked == block.len()).then_some(())
    }
}

/// The context, made if there is none yet.
fn decompressor<'a>(made: &'a mut Option<DCtx<'static>>) -> Option<&'a mut DCtx<'static>> {
    if made.is_none() {
        let mut context = DCtx::try_create()?;
        context.set_parameter(DParameter::Format(FrameFormat::Magicless)).ok()?;
        *made = Some(context);
    }
    made.as_mut()
}

/// The word that the block repeats, if it repeats one.
pub(crate) fn fill_word(block: &[u8]) -> Option<u64> {
    // Equal to itself shifted by a word: one memcmp, which stops at the first difference.
    let (word, rest) = block.split_first_chunk()?;
    (*rest == block[..block.len() - 8]).then(|| u64::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Block;

    #[test]
    fn a_codec_reads_its_own_name() {
        for codec in
            [Codec::Lz4, Codec::Zstd(1), Codec::Zstd(-5), Codec::Zstd(22), Codec::Adaptive(3), Codec::Adaptive(-1)]
        {
            assert_eq!(codec.to_string().parse(), Ok(codec));
        }
        assert_eq!("zstd".parse(), Ok(Codec::Zstd(1)));
        assert_eq!("adaptive".parse(), Ok(Codec::Adaptive(3)));
    }

    #[test]
    fn a_name_that_is_no_codec_is_refused_with_what_would_do() {
        for name in ["", "lzo", "LZ4", "lz4:1", "zstd1", "zst:1"] {
            let error = name.parse::<Codec>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("unknown codec '{name}': use lz4, zstd, zstd:LEVEL, adaptive or adaptive:LEVEL")
            );
        }
        for level in ["", "23", "-131073", "1.5", "fast", "99999999999"] {
            let error = format!("zstd:{level}").parse::<Codec>().unwrap_err();
            assert!(error.to_string().ends_with("use a whole number from -131072 to 22"), "{error}");
        }
    }

    #[test]
    fn a_zstd_payload_has_no_magic_number_and_no_length() {
        with(|engine| {
            let mut block = [7; BLOCK_SIZE];
            block[0] = 1;
            let (form, payload) = engine.pack(Codec::Zstd(1), &block);
            assert_eq!(form, Form::Zstd);
            // Frame header descriptor: no content size, no checksum, no dictionary id.
            assert_eq!(payload[0], 0);
        });
    }

    #[test]
    fn every_codec_gives_back_what_it_took_at_every_block_size() {
        for codec in [Codec::Lz4, Codec::Zstd(1), Codec::Zstd(-5)] {
            for size in [1024, 2048, 4096, 8192, 16_384] {
                let block: Vec<u8> = (0..size).map(|at: usize| (at * at / 61 % 11) as u8).collect();
                let mut engine = Engine::new(size);
                engine.prepare(codec).unwrap();
                for _ in 0..2 {
                    let (form, payload) = engine.pack(codec, &block);
                    let len = payload.len();
                    assert!(len < size && form != Form::Raw);
                    let mut out = vec![0; size];
                    engine.unpack(form, len, &mut out).unwrap();
                    assert_eq!(out, block);
                }
            }
        }
    }

    #[test]
    fn only_a_repeated_word_is_same_filled() {
        assert_eq!(fill_word(&[0; 4096]), Some(0));
        assert_eq!(fill_word(&[7; 1024]), Some(0x0707_0707_0707_0707));
        let mut block = [7; 4096];
        block[4095] = 8;
        assert_eq!(fill_word(&block), None);
    }

    #[test]
    fn a_thread_may_change_the_level_at_every_block() {
        with(|engine| {
            let block: Block = std::array::from_fn(|at| (at / 16 % 250) as u8);
            for codec in [Codec::Zstd(1), Codec::Zstd(19), Codec::Lz4, Codec::Zstd(-7), Codec::Zstd(1)] {
                let (form, payload) = engine.pack(codec, &block);
                let len = payload.len();
                assert!(len < BLOCK_SIZE / 2);
                let mut out = [0; BLOCK_SIZE];
                engine.unpack(form, len, &mut out).unwrap();
                assert!(out == block, "{codec}");
            }
        });
    }

    proptest! {
        /// A damaged payload is an error or some other block, never a panic.
        #[test]
        fn a_damaged_payload_does_no_harm(
            codec in prop_oneof![Just(Codec::Lz4), Just(Codec::Zstd(3))],
            runs in prop::collection::vec((any::<u8>(), 1..64_usize), 1..200),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            whole in any::<bool>(),
        ) {
            let mut bytes = runs.iter().flat_map(|(byte, len)| std::iter::repeat_n(*byte, *len)).cycle();
            let block: Block = std::array::from_fn(|_| bytes.next().unwrap_or(0));
            with(|engine| {
                let (form, payload) = engine.pack(codec, &block);
                let mut len = payload.len();
                for (at, value) in &damage {
                    engine.payload(len)[at.index(len)] = *value;
                }
                if !whole {
                    len = cut.index(len) + 1;
                }
                let mut out = [0; BLOCK_SIZE];
                let _ = engine.unpack(form, len, &mut out);
            });
        }

        /// Nor does noise.
        #[test]
        fn noise_is_no_payload(
            form in prop_oneof![Just(Form::Lz4), Just(Form::Zstd), Just(Form::Raw)],
            noise in prop::collection::vec(any::<u8>(), 1..BLOCK_SIZE),
        ) {
            with(|engine| {
                engine.payload(noise.len()).copy_from_slice(&noise);
                let _ = engine.unpack(form, noise.len(), &mut [0; BLOCK_SIZE]);
            });
        }
    }
}
