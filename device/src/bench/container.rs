//! Files that are not what their user means to measure: compressed ones, and disk images of QEMU's own kind.
//!
//! They are recognised by how they begin, whatever their name.

use std::path::Path;

/// Bytes that the longest beginning has.
pub(super) const HEAD: usize = 10;

/// What a file is by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Container {
    Zstd,
    Lz4,
    Gzip,
    Xz,
    Bzip2,
    Qcow2,
}

/// Where a container was found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// A file that can be named again.
    File(&'a Path),
    /// Something that flows in: its name.
    Stream(&'a str),
}

impl Container {
    /// What begins so, if it is a container.
    pub(super) fn recognise(head: &[u8]) -> Option<Self> {
        Some(match head {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // The frame of today, and the legacy frame, which Linux uses.
            [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4,
            // The third byte is the method, and deflate is the only one.
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // "BZh" and a digit begin many a text: the first block follows, or the end of an empty stream.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Self::Bzip2,
            [b'Q', b'F', b'I', 0xfb, ..] => Self::Qcow2,
            _ => return None,
        })
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::Qcow2 => "qcow2",
        }
    }

    /// Why it is not measured, and what to do.
    pub(super) fn refusal(self, place: Place<'_>) -> String {
        let (what, quoted) = match place {
            Place::File(path) => (path.display().to_string(), quoted(path)),
            Place::Stream(name) => (name.to_owned(), String::new()),
        };
        let name = self.name();
        match (self, place) {
            (Self::Qcow2, Place::File(_)) => format!(
                "{what} is a disk image (qcow2): make it raw with `qemu-img convert -O raw {quoted} raw.img` and measure \
                 that, or the image's own bytes with --as-is"
            ),
            (Self::Qcow2, Place::Stream(_)) => format!(
                "{what} is a disk image (qcow2): make it raw with `qemu-img convert -O raw IMAGE raw.img` and measure that, \
                 or the image's own bytes with --as-is"
            ),
            (_, Place::File(_)) => format!(
                "{what} is compressed ({name}): measure what is in it with `{name} -dc {quoted} | cxl-cram-device bench -`, \
                 or the compressed bytes with --as-is"
            ),
            (_, Place::Stream(_)) => format!(
                "{what} is compressed ({name}): put `{name} -dc |` before the bench, or measure the compressed bytes with \
                 --as-is"
            ),
        }
    }
}

/// The path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    shlex::try_quote(&text).map_or(text.clone(), |quoted| quoted.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_begins_alike_is_no_container() {
        for text in [&b"BZh9 is how it begins"[..], b"QFI", b"\x1f\x8b", b"7zXZ", b"", b"KDUMP   "] {
            assert_eq!(Container::recognise(text), None);
        }
    }

    #[test]
    fn the_remedy_can_be_pasted_whatever_the_path() {
        let refusal = Container::Gzip.refusal(Place::File(Path::new("my core's.gz")));
        assert!(refusal.contains("`gzip -dc \"my core's.gz\" | cxl-cram-device bench -`"), "{refusal}");
    }
}
