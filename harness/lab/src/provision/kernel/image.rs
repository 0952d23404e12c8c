//! Reads the release from a bzImage (Documentation/arch/x86/boot.rst, "the real-mode kernel header").

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::provision::elf::is_elf;
use crate::provision::error::{IoContext, ProvisionError};

/// The setup code: at most 64 sectors after the boot sector.
const MOST_SETUP: u64 = 65 * 512;
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
/// The header's pointer to the version, relative to 200h.
const VERSION_POINTER: usize = 0x20e;
const VERSION_BASE: usize = 0x200;

/// The release of the kernel in an image, as `uname -r` prints it. Empty for a vmlinux, which QEMU can boot too.
pub(super) fn release(image: &Path) -> Result<String, ProvisionError> {
    let mut start = Vec::new();
    let file = File::open(image).context("read", image)?;
    file.take(MOST_SETUP).read_to_end(&mut start).context("read", image)?;
    if is_elf(&start) {
        return Ok(String::new());
    }
    release_in(&start).ok_or_else(|| ProvisionError::NoImage { path: image.to_owned() })
}

fn release_in(start: &[u8]) -> Option<String> {
    start.get(MAGIC.0..)?.strip_prefix(MAGIC.1)?;
    let pointer = u16::from_le_bytes(start.get(VERSION_POINTER..)?.first_chunk().copied()?);
    if pointer == 0 {
        return Some(String::new());
    }
    let text = start.get(VERSION_BASE + usize::from(pointer)..)?.split(|byte| *byte == 0 || *byte == b' ').next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(pointer: u16, version: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&pointer.to_le_bytes());
        image.extend_from_slice(version);
        image
    }

    #[test]
    fn the_release_is_the_first_word_of_the_version_that_the_header_points_to() {
        assert_eq!(release_in(&image(0x200, b"6.12.117 (me@here) #1 SMP\0")).as_deref(), Some("6.12.117"));
        assert_eq!(release_in(&image(0, b"x")).as_deref(), Some(""));
    }

    #[test]
    fn a_file_that_is_not_a_valid_bzimage_is_refused() {
        assert_eq!(release_in(b"#!/bin/sh\n"), None);
        assert_eq!(release_in(&[0; 0x300]), None);
        assert_eq!(release_in(&image(0xffff, b"6.12")), None);
    }
}
