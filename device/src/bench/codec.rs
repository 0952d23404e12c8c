//! The codecs at any block size, as the store calls them: state kept, zstd frames without magic, size or checksum.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use zstd_safe::{CCtx, DCtx, DParameter, FrameFormat};

use super::packing::STEP;
use crate::store::{Codec, set_frame};

/// One codec for one thread.
pub(super) struct Engine {
    state: State,
    payload: Vec<u8>,
    block: Vec<u8>,
}

enum State {
    Lz4(CompressTable),
    Zstd(Box<(CCtx<'static>, DCtx<'static>)>),
}

impl Engine {
    /// A codec for blocks of this size. None if zstd has no memory for it.
    pub(super) fn new(codec: Codec, block_size: usize) -> Option<Self> {
        let (state, room) = match codec {
            Codec::Lz4 => (State::Lz4(CompressTable::small()), get_maximum_output_size(block_size)),
            // The command line refuses `adaptive`: what it becomes depends on time, not on the data.
            Codec::Zstd(level) | Codec::Adaptive(level) => {
                let (mut pack, mut unpack) = (CCtx::try_create()?, DCtx::try_create()?);
                set_frame(&mut pack, level)?;
                unpack.set_parameter(DParameter::Format(FrameFormat::Magicless)).ok()?;
                (State::Zstd(Box::new((pack, unpack))), zstd_safe::compress_bound(block_size))
            }
        };
        Some(Self { state, payload: vec![0; room], block: vec![0; block_size] })
    }

    /// Compresses a block. Its payload's length; None if it does not shrink by a size class and is stored raw.
    pub(super) fn pack(&mut self, block: &[u8]) -> Option<usize> {
        let len = match &mut self.state {
            State::Lz4(table) => compress_into_with_table(block, &mut self.payload, table).ok()?,
            State::Zstd(contexts) => contexts.0.compress2(&mut self.payload[..], block).ok()?,
        };
        (len > 0 && len + STEP <= block.len()).then_some(len)
    }

    /// Decompresses the first `len` bytes of the last payload. The block, if it is whole.
    pub(super) fn unpack(&mut self, len: usize) -> Option<&[u8]> {
        let payload = self.payload.get(..len)?;
        let got = match &mut self.state {
            State::Lz4(_) => decompress_into(payload, &mut self.block).ok()?,
            State::Zstd(contexts) => contexts.1.decompress(&mut self.block[..], payload).ok()?,
        };
        (got == self.block.len()).then_some(&self.block)
    }
}

/// The word that a block repeats, if it repeats one.
pub(super) fn fill_word(block: &[u8]) -> Option<u64> {
    let (word, rest) = block.split_first_chunk()?;
    (*rest == block[..block.len() - 8]).then(|| u64::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_back_what_it_took_at_every_block_size() {
        for codec in [Codec::Lz4, Codec::Zstd(1), Codec::Zstd(-5)] {
            for size in [1024, 2048, 4096, 8192, 16_384] {
                let block: Vec<u8> = (0..size).map(|at: usize| (at * at / 61 % 11) as u8).collect();
                let mut engine = Engine::new(codec, size).unwrap();
                for _ in 0..2 {
                    let len = engine.pack(&block).unwrap();
                    assert!(len < size);
                    assert_eq!(engine.unpack(len).unwrap(), block);
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
}
