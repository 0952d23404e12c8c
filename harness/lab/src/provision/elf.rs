//! Finds the files that a program needs to start: its dynamic loader and the closure of its shared libraries.
//!
//! The crate `lddtree` computes the same closure, but does not confine it to a root: it resolves symbolic links on the host,
//! and a library name with a slash may lead out too. Here, [`inside`] and [`is_file_name`] refuse both.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use elf::ElfBytes;
use elf::abi::{DT_NEEDED, DT_STRTAB, PT_INTERP, PT_LOAD};
use elf::endian::AnyEndian;

use super::error::{IoContext, ProvisionError};

/// The default search path of Debian's loader.
const SEARCH: [&str; 6] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64", "usr/lib", "lib"];
/// Far more libraries than any program has. Ends the search in a malicious file.
const MOST_LIBRARIES: usize = 1000;

/// The dependencies of one ELF file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// The dynamic loader, an absolute path.
    loader: Option<String>,
    /// Names of shared libraries.
    libraries: Vec<String>,
}

/// Whether these are the first bytes of an ELF file.
pub(super) fn is_elf(start: &[u8]) -> bool {
    start.starts_with(b"\x7fELF")
}

/// Whether the program runs without a loader and libraries.
pub(super) fn is_static(program: &Path) -> Result<bool, ProvisionError> {
    Ok(needs(program)? == Needs::default())
}

/// The files that `programs` (relative to `root`) need to start: paths in a new root, with the files of `root` that belong
/// there.
pub(super) fn closure(root: &Path, programs: &[&str]) -> Result<BTreeMap<PathBuf, PathBuf>, ProvisionError> {
    let root = root.canonicalize().context("find", root)?;
    let mut files = BTreeMap::new();
    let mut left = Vec::new();
    for program in programs {
        left.push((PathBuf::from(program), inside(&root, Path::new(program))?));
    }
    while let Some((place, file)) = left.pop() {
        if files.contains_key(&place) {
            continue;
        }
        let needs = needs(&file)?;
        if let Some(loader) = needs.loader {
            let place = PathBuf::from(loader.trim_start_matches('/'));
            let file = inside(&root, &place).or_else(|_| inside(&root, &Path::new("usr").join(&place)))?;
            left.push((place, file));
        }
        for library in needs.libraries {
            let candidates = SEARCH.iter().map(|folder| Path::new(folder).join(&library));
            let found = candidates.filter_map(|place| inside(&root, &place).ok()).next();
            let why =
                || ProvisionError::Elf { path: file.clone(), why: format!("it needs {library}, which no package has") };
            left.push((Path::new(SEARCH[0]).join(&library), found.ok_or_else(why)?));
        }
        files.insert(place, file);
        if files.len() > MOST_LIBRARIES {
            return Err(ProvisionError::Elf { path: root, why: "its programs need too many libraries".into() });
        }
    }
    Ok(files)
}

/// Resolves a path in the root. Fails if it leads out of the root.
fn inside(root: &Path, path: &Path) -> Result<PathBuf, ProvisionError> {
    let joined = root.join(path);
    let file = joined.canonicalize().context("find", &joined)?;
    match file.starts_with(root) {
        true => Ok(file),
        false => Err(ProvisionError::Elf { path: joined, why: "it leads out of its root folder".into() }),
    }
}

fn needs(path: &Path) -> Result<Needs, ProvisionError> {
    let bytes = fs::read(path).context("read", path)?;
    parse(&bytes).map_err(|why| ProvisionError::Elf { path: path.into(), why })
}

fn parse(bytes: &[u8]) -> Result<Needs, String> {
    let file =
        ElfBytes::<AnyEndian>::minimal_parse(bytes).map_err(|error| format!("it is not an ELF file: {error}"))?;
    let broken = |error: elf::ParseError| format!("it is a damaged ELF file: {error}");
    let segments: Vec<_> = file.segments().ok_or("it has no segments")?.iter().collect();
    let mut needs = Needs::default();
    if let Some(interpreter) = segments.iter().find(|segment| segment.p_type == PT_INTERP) {
        let text = file.segment_data(interpreter).map_err(broken)?;
        needs.loader = Some(string(text, 0).ok_or("its loader has no name")?);
    }
    let Some(dynamic) = file.dynamic().map_err(broken)? else {
        return Ok(needs);
    };
    let Some(table) = dynamic.iter().find(|entry| entry.d_tag == DT_STRTAB).map(|entry| entry.d_ptr()) else {
        return Ok(needs);
    };
    // The string table is given by its address in memory; the segments map that to the file.
    let holds = |s: &&elf::segment::ProgramHeader| {
        s.p_type == PT_LOAD && table.checked_sub(s.p_vaddr).is_some_and(|offset| offset < s.p_filesz)
    };
    let segment = segments.iter().find(holds).ok_or("its string table is in no segment")?;
    let strings = file.segment_data(segment).map_err(broken)?;
    for entry in dynamic.iter().filter(|entry| entry.d_tag == DT_NEEDED) {
        let offset = (table - segment.p_vaddr).checked_add(entry.d_val()).ok_or("a library has no name")?;
        let name = string(strings, offset).filter(|name| is_file_name(name)).ok_or("a library has no name")?;
        needs.libraries.push(name);
    }
    Ok(needs)
}

/// The zero-terminated string at `offset`.
fn string(bytes: &[u8], offset: u64) -> Option<String> {
    let bytes = bytes.get(usize::try_from(offset).ok()?..)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    String::from_utf8(bytes[..end].to_vec()).ok().filter(|text| !text.is_empty())
}

/// A name that cannot lead to another folder.
fn is_file_name(name: &str) -> bool {
    !name.contains('/') && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test program is dynamic and needs libc.
    fn own_program() -> PathBuf {
        std::env::current_exe().unwrap()
    }

    #[test]
    fn a_dynamic_program_names_its_loader_and_libraries() {
        let needs = needs(&own_program()).unwrap();
        assert!(needs.loader.as_deref().unwrap().contains("ld-linux"), "{needs:?}");
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{needs:?}");
        assert!(!is_static(&own_program()).unwrap());
    }

    #[test]
    fn the_closure_of_a_program_has_all_libraries_and_the_loader() {
        let root = tempfile::tempdir().unwrap();
        let put = |from: &Path, to: &str| {
            let to = root.path().join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        };
        put(&own_program(), "usr/bin/program");
        let error = closure(root.path(), &["usr/bin/program"]).unwrap_err();
        assert!(matches!(error, ProvisionError::Io { .. } | ProvisionError::Elf { .. }), "{error}");
        let own = own_program();
        let host = closure(Path::new("/"), &[own.to_str().unwrap().trim_start_matches('/')]).unwrap();
        for (place, file) in &host {
            put(file, place.to_str().unwrap());
        }
        let own = closure(root.path(), &["usr/bin/program"]).unwrap();
        assert!(own.contains_key(Path::new("lib64/ld-linux-x86-64.so.2")), "{own:?}");
        assert!(own.contains_key(Path::new("usr/lib/x86_64-linux-gnu/libc.so.6")), "{own:?}");
        assert_eq!(own.len(), host.len());
    }

    #[test]
    fn a_program_that_leads_out_of_its_root_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(own_program(), root.path().join("program")).unwrap();
        let error = closure(root.path(), &["program"]).unwrap_err().to_string();
        assert!(error.contains("leads out of its root folder"), "{error}");
    }

    #[test]
    fn a_damaged_file_never_panics() {
        let whole = fs::read(own_program()).unwrap();
        assert!(parse(b"").is_err());
        assert!(parse(b"\x7fELF").is_err());
        // The headers lie in the first pages: no flipped byte there may panic.
        for position in 0..whole.len().min(1024) {
            let mut bytes = whole[..whole.len().min(256 * 1024)].to_vec();
            bytes[position] ^= 0xff;
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn a_library_name_with_a_slash_is_refused() {
        assert!(is_file_name("libc.so.6"));
        assert!(!is_file_name("../../etc/passwd") && !is_file_name(".."));
    }
}
