//! Makes the corpus, a file of real data for guests to fill memory with.
//!
//! Half is machine code (QEMU and its libraries), half is source text (the kernel's). It is plain data: files one after
//! the other, without headers and padding. The two kinds alternate every MiB, so that any stretch is a mixture. The same
//! inputs give the same bytes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::cache::{Key, files_below};
use super::elf::is_elf;
use super::error::{IoContext, ProvisionError};
use cxl_cram_kit::progress::Step;

const MIB: u64 = 1 << 20;
/// Size of the corpus in bytes: 256 MiB.
pub const BYTES: u64 = 256 * MIB;
const NAME: &str = "corpus";
/// Raise when the choice or the layout of files changes.
const RECIPE: &[u8] = b"1";
const TEXT: [&str; 4] = ["c", "h", "S", "rst"];

/// The sources of the data.
pub(super) struct Sources {
    /// Folders and files to take ELF files from.
    pub(super) machine_code: Vec<PathBuf>,
    /// The kernel's source tree.
    pub(super) text: PathBuf,
}

/// The key of the corpus. The path of a product contains its hash; for other files, the size is hashed too.
pub(super) fn key(sources: &Sources, cache: &Path) -> Key {
    let mut inputs = vec![("recipe", RECIPE.to_vec())];
    for path in sources.machine_code.iter().chain([&sources.text]) {
        let place = path.strip_prefix(cache).unwrap_or(path);
        inputs.push(("path", place.as_os_str().as_encoded_bytes().to_vec()));
        let size = fs::metadata(path).map_or(0, |metadata| if metadata.is_file() { metadata.len() } else { 0 });
        inputs.push(("size", size.to_le_bytes().to_vec()));
    }
    Key::of(&inputs.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect::<Vec<_>>())
}

/// The path of the corpus in a finished product.
pub(super) fn in_product(product: &Path) -> PathBuf {
    product.join(NAME)
}

/// Writes the corpus into a product.
pub(super) fn make(sources: &Sources, product: &Path, step: &mut Step) -> Result<(), ProvisionError> {
    step.phase("choosing files", 0);
    let mut code = Vec::new();
    for path in &sources.machine_code {
        let files = if path.is_dir() { files_below(path)? } else { vec![path.clone()] };
        code.extend(files.into_iter().filter(|file| starts_like_elf(file)));
    }
    let text = shuffled(&sources.text, files_below(&sources.text)?);
    step.phase("writing", BYTES / MIB);
    let path = in_product(product);
    let mut corpus = File::create(&path).context("create", &path)?;
    mix(Files::new(code), Files::new(text), BYTES, &mut corpus, |mib| step.at(mib, "writing"))
}

fn starts_like_elf(file: &Path) -> bool {
    let mut start = [0; 4];
    File::open(file).and_then(|mut file| file.read_exact(&mut start)).is_ok() && is_elf(&start)
}

/// Source files in a fixed pseudo-random order, so that the text comes from all over the tree.
fn shuffled(tree: &Path, files: Vec<PathBuf>) -> Vec<PathBuf> {
    let is_text = |file: &PathBuf| file.extension().is_some_and(|e| TEXT.iter().any(|text| e == *text));
    let mut files: Vec<_> = files.into_iter().filter(is_text).collect();
    files.sort_by_cached_key(|file| {
        let name = file.strip_prefix(tree).unwrap_or(file);
        Sha256::digest(name.as_os_str().as_encoded_bytes())
    });
    files
}

/// Writes `bytes` bytes, a MiB of each stream in turn. When one ends, the other continues alone.
fn mix(
    mut code: Files,
    mut text: Files,
    bytes: u64,
    corpus: &mut impl Write,
    mut written_mib: impl FnMut(u64),
) -> Result<(), ProvisionError> {
    let mut written = 0;
    while written < bytes {
        let before = written;
        for stream in [&mut code, &mut text] {
            written += stream.copy(MIB.min(bytes - written), corpus)?;
        }
        if written == before {
            return Err(ProvisionError::CorpusTooSmall { have_mib: written / MIB, need_mib: bytes / MIB });
        }
        written_mib(written / MIB);
    }
    Ok(())
}

/// Files read one after the other.
struct Files {
    left: std::vec::IntoIter<PathBuf>,
    open: Option<(File, PathBuf)>,
}

impl Files {
    fn new(files: Vec<PathBuf>) -> Files {
        Files { left: files.into_iter(), open: None }
    }

    /// Copies up to `bytes` bytes; fewer only at the end of the last file.
    fn copy(&mut self, bytes: u64, to: &mut impl Write) -> Result<u64, ProvisionError> {
        let mut copied = 0;
        while copied < bytes {
            let (file, path) = match &mut self.open {
                Some(open) => open,
                None => {
                    let Some(path) = self.left.next() else { break };
                    let file = File::open(&path).context("read", &path)?;
                    self.open.insert((file, path))
                }
            };
            let count = io::copy(&mut file.take(bytes - copied), to).context("copy", &*path)?;
            copied += count;
            if count == 0 {
                self.open = None;
            }
        }
        Ok(copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, byte: u8, bytes: u64) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, vec![byte; bytes as usize]).unwrap();
        path
    }

    #[test]
    fn the_two_kinds_alternate_without_padding_until_the_size_is_exact() {
        let folder = tempfile::tempdir().unwrap();
        let code = vec![write(folder.path(), "a", b'1', MIB / 2), write(folder.path(), "b", b'2', MIB)];
        let text = vec![write(folder.path(), "empty", 0, 0), write(folder.path(), "c", b'c', 3 * MIB)];
        let mut corpus = Vec::new();
        mix(Files::new(code), Files::new(text), 4 * MIB + 7, &mut corpus, |_| {}).unwrap();
        let runs: Vec<(u8, usize)> = corpus.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
        let half = MIB as usize / 2;
        assert_eq!(runs, [(b'1', half), (b'2', half), (b'c', 2 * half), (b'2', half), (b'c', 3 * half + 7)]);
    }

    #[test]
    fn too_little_data_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let text = vec![write(folder.path(), "c", b'c', 3 * MIB)];
        let error = mix(Files::new(Vec::new()), Files::new(text), 4 * MIB, &mut Vec::new(), |_| {}).unwrap_err();
        assert!(matches!(error, ProvisionError::CorpusTooSmall { have_mib: 3, need_mib: 4 }), "{error}");
    }

    #[test]
    fn the_order_of_the_text_depends_only_on_names_inside_the_tree() {
        let names = ["mm/swap.c", "mm/page.h", "kernel/fork.c", "a.rst", "drivers/x.o"];
        let order = |tree: &str| {
            let tree = Path::new(tree);
            let files = shuffled(tree, names.iter().map(|name| tree.join(name)).collect());
            files.iter().map(|file| file.strip_prefix(tree).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(order("/one"), order("/some/where/else"));
        assert_eq!(order("/one").len(), 4);
    }
}
