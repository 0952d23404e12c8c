//! Core dumps and QEMU's `dump-guest-memory`: ELF files of type ET_CORE, whose PT_LOAD segments are the memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use elf::abi::{EI_NIDENT, ET_CORE, PN_XNUM, PT_LOAD};
use elf::endian::AnyEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::{ParseAt, ParseError};
use elf::section::SectionHeader;
use elf::segment::{ProgramHeader, SegmentTable};

/// More segments than this are not believed. A process has at most 65530 mappings by default.
const MAX_SEGMENTS: usize = 1 << 20;

/// Why a core dump is not measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum CoreError {
    /// The file ends too early.
    #[error("the core dump is truncated: it should have {needed} bytes and has {len}; dump it again")]
    Truncated {
        /// Bytes its headers speak of.
        needed: u64,
        /// Bytes there are.
        len: u64,
    },
    /// A compressed dump.
    #[error("this is a compressed kdump file, not memory: dump as plain ELF, for QEMU with `dump-guest-memory FILE`")]
    Kdump,
    /// The headers make no sense.
    #[error("the core dump has a damaged ELF header; dump it again")]
    Header(#[from] ParseError),
    /// No memory in it.
    #[error("the core dump has no memory in it: it needs PT_LOAD segments with contents")]
    Empty,
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Offset and length of each PT_LOAD segment's contents; None if the file is no core dump.
pub(super) fn segments(file: &File, len: u64) -> Result<Option<Vec<(u64, u64)>>, CoreError> {
    let mut header = [0; 64];
    let mut got = 0;
    while got < header.len() {
        match file.read_at(&mut header[got..], got as u64)? {
            0 => break,
            n => got += n,
        }
    }
    if header.starts_with(b"KDUMP   ") || header.starts_with(b"makedumpfile") {
        return Err(CoreError::Kdump);
    }
    let Ok(ident) = parse_ident::<AnyEndian>(&header[..EI_NIDENT]) else { return Ok(None) };
    let tail = if ident.1 == Class::ELF64 { 48 } else { 36 };
    let header = FileHeader::parse_tail(ident, &header[EI_NIDENT..EI_NIDENT + tail])?;
    if header.e_type != ET_CORE {
        return Ok(None);
    }
    let read = |offset: u64, bytes: usize| {
        let needed = offset.saturating_add(bytes as u64);
        if needed > len {
            return Err(CoreError::Truncated { needed, len });
        }
        let mut buffer = vec![0; bytes];
        file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer)
    };
    let count = match header.e_phnum {
        // Too many for 16 bits: the first section header has the number.
        PN_XNUM => {
            let section = read(header.e_shoff, SectionHeader::size_for(header.class))?;
            SectionHeader::parse_at(header.endianness, header.class, &mut 0, &section)?.sh_info as usize
        }
        count => count.into(),
    };
    let size = ProgramHeader::validate_entsize(header.class, header.e_phentsize.into())?;
    if count > MAX_SEGMENTS {
        return Err(CoreError::Header(ParseError::IntegerOverflow));
    }
    let table = read(header.e_phoff, count * size)?;
    let mut found = Vec::new();
    for segment in SegmentTable::new(header.endianness, header.class, &table) {
        if segment.p_type != PT_LOAD || segment.p_filesz == 0 {
            continue;
        }
        let needed = segment.p_offset.saturating_add(segment.p_filesz);
        if needed > len {
            return Err(CoreError::Truncated { needed, len });
        }
        found.push((segment.p_offset, segment.p_filesz));
    }
    if found.is_empty() { Err(CoreError::Empty) } else { Ok(Some(found)) }
}
