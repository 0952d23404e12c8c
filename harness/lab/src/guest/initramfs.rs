//! Builds the initramfs: the agent as init, modules and tools, with ACPI overrides in a separate archive before them.
//!
//! Two consecutive `newc` archives (Documentation/driver-api/early-userspace/buffer-format.rst). The first must not be
//! compressed, because the kernel reads ACPI overrides from it before it can decompress. The same input gives the same
//! bytes: names are sorted, owners are root, times are zero.
//!
//! The `cpio` crate writes the entries. It has no ordering, parent directories or merging of several roots, which is what
//! this module adds.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cpio::newc::{self, ModeFileType};
use cxl_cram_wire::protocol::{MODULES_DIR, ON_DEMAND_DIR};
use thiserror::Error;

use super::acpi::{AcpiError, Table};
use super::modules;
use super::modules::Module;

/// The guest program's path in the guest, besides `/init`.
pub const GUEST_PROGRAM: &str = "/usr/bin/cxl-cram-guest";

/// Where the kernel looks for ACPI overrides.
const ACPI_DIR: &str = "kernel/firmware/acpi";
/// Mount points, and directories that programs expect.
const DIRECTORIES: [&str; 8] = ["dev", "mnt", "proc", "root", "run", "sys", "tmp", "usr/bin"];
/// The links of Debian's merged `/usr`. A directory of that name in the tools replaces the link.
const MERGED_USR: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// The second archive starts at a multiple of this, in bytes.
const ALIGN: usize = 512;
/// Maximum depth and number of entries of a tools root.
const MAX_DEPTH: usize = 32;
const MAX_ENTRIES: usize = 100_000;

/// An error that prevents building the initramfs.
#[derive(Debug, Error)]
pub enum InitramfsError {
    /// A file cannot be read.
    #[error("cannot read {path} for the initramfs")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file that an archive cannot hold.
    #[error("{path} does not fit the initramfs: {why}; remove it from the guest's tools or modules")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// An invalid ACPI override.
    #[error("an ACPI override is invalid")]
    Table(#[from] AcpiError),
    /// The archive cannot be written.
    #[error("cannot build the initramfs")]
    Write(#[source] io::Error),
}

/// The contents of an initramfs.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    /// The static guest program; becomes `/init`.
    pub agent: PathBuf,
    /// Kernel modules, in the order in which the agent loads them.
    pub modules: Vec<PathBuf>,
    /// Kernel modules that the agent loads only on request.
    pub on_demand: Vec<PathBuf>,
    /// The kernel's release, as `uname -r` prints it: `modprobe` and `daxctl` find modules by it. If it is empty, they
    /// find none.
    pub release: String,
    /// The kernel's `modules.builtin`, if known.
    pub builtin: Option<PathBuf>,
    /// Directories to copy to `/`. Later ones replace files of earlier ones.
    pub tools: Vec<PathBuf>,
    /// ACPI tables that replace the firmware's.
    pub tables: Vec<Table>,
}

enum Node {
    Directory,
    File {
        content: Vec<u8>,
        executable: bool,
    },
    Symlink(String),
    /// A character device: major, minor.
    Character(u32, u32),
}

impl Initramfs {
    /// The bytes for QEMU's `-initrd`.
    ///
    /// # Errors
    /// A file cannot be read, or the archive cannot hold it, or an ACPI override is invalid.
    pub fn build(&self) -> Result<Vec<u8>, InitramfsError> {
        let mut bytes = self.early_archive()?;
        archive(&self.root()?, &mut bytes).map_err(InitramfsError::Write)?;
        Ok(bytes)
    }

    /// Only the first archive, with the ACPI overrides, to prepend to another initramfs. Empty without tables.
    ///
    /// # Errors
    /// An ACPI override is invalid.
    pub fn early_archive(&self) -> Result<Vec<u8>, InitramfsError> {
        let mut bytes = Vec::new();
        if !self.tables.is_empty() {
            archive(&self.early()?, &mut bytes).map_err(InitramfsError::Write)?;
            bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        }
        Ok(bytes)
    }

    fn early(&self) -> Result<BTreeMap<String, Node>, InitramfsError> {
        let mut nodes = BTreeMap::new();
        for table in &self.tables {
            let name = String::from_utf8_lossy(&table.header.signature).into_owned();
            if !name.chars().all(|c| c.is_ascii_alphanumeric()) {
                return Err(AcpiError::Name.into());
            }
            let node = Node::File { content: table.to_bytes()?, executable: false };
            insert(&mut nodes, format!("{ACPI_DIR}/{name}.aml"), node);
        }
        Ok(nodes)
    }

    fn root(&self) -> Result<BTreeMap<String, Node>, InitramfsError> {
        let mut nodes = BTreeMap::new();
        for directory in DIRECTORIES {
            insert(&mut nodes, directory.into(), Node::Directory);
        }
        // Until process 1 has mounted /dev, this is its only standard output.
        insert(&mut nodes, "dev/console".into(), Node::Character(5, 1));
        for tools in &self.tools {
            add_tree(&mut nodes, tools, "", 0)?;
        }
        insert(&mut nodes, "init".into(), Node::File { content: read(&self.agent)?, executable: true });
        insert(&mut nodes, GUEST_PROGRAM[1..].into(), Node::Symlink("/init".into()));
        self.add_modules(&mut nodes)?;
        for name in MERGED_USR {
            if !nodes.contains_key(name) {
                insert(&mut nodes, format!("usr/{name}"), Node::Directory);
                insert(&mut nodes, name.into(), Node::Symlink(format!("usr/{name}")));
            }
        }
        Ok(nodes)
    }

    /// Adds the modules for the agent, and links to them for `modprobe`.
    fn add_modules(&self, nodes: &mut BTreeMap<String, Node>) -> Result<(), InitramfsError> {
        let at_boot = (0_usize..).zip(&self.modules).map(|(index, path)| (path, format!("{MODULES_DIR}/{index:02}-")));
        let on_demand = self.on_demand.iter().map(|path| (path, format!("{ON_DEMAND_DIR}/")));
        let (mut known, mut links) = (Vec::new(), Vec::new());
        for (path, before) in at_boot.chain(on_demand) {
            let name = file_name(path)?;
            let place = before + name;
            let content = read(path)?;
            known.push(Module::new(name, &content));
            insert(nodes, place[1..].to_owned(), Node::File { content, executable: false });
            links.push((format!("{}/{name}", modules::FOLDER), place));
        }

        // If the tools have /lib as a link, it leads to /usr/lib like ours.
        let lib = if matches!(nodes.get("lib"), Some(Node::Directory)) { "lib" } else { "usr/lib" };
        let folder = format!("{lib}/modules/{}", self.release);
        // The tools may contain modules with their own index files.
        if self.release.is_empty() || self.release.contains('/') || nodes.contains_key(&folder) {
            return Ok(());
        }
        let builtin = self.builtin.as_deref().map(read).transpose()?;
        let builtin = builtin.as_deref().map(String::from_utf8_lossy);
        for (link, place) in links {
            insert(nodes, format!("{folder}/{link}"), Node::Symlink(place));
        }
        for (name, content) in modules::files(&known, builtin.as_deref()) {
            insert(nodes, format!("{folder}/{name}"), Node::File { content, executable: false });
        }
        Ok(())
    }
}

/// Adds a node and the directories above it. A directory does not replace another node.
fn insert(nodes: &mut BTreeMap<String, Node>, path: String, node: Node) {
    let mut at = 0;
    while let Some(slash) = path[at..].find('/') {
        nodes.entry(path[..at + slash].to_owned()).or_insert(Node::Directory);
        at += slash + 1;
    }
    if !matches!((nodes.get(&path), &node), (Some(_), Node::Directory)) {
        nodes.insert(path, node);
    }
}

fn file_name(path: &Path) -> Result<&str, InitramfsError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| InitramfsError::Unfit { path: path.into(), why: "its name is not UTF-8" })
}

fn read(path: &Path) -> Result<Vec<u8>, InitramfsError> {
    fs::read(path).map_err(|source| InitramfsError::Read { path: path.into(), source })
}

fn add_tree(nodes: &mut BTreeMap<String, Node>, from: &Path, below: &str, depth: usize) -> Result<(), InitramfsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| InitramfsError::Read { path, source }
    };
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let path = entry.path();
        let unfit = |why| InitramfsError::Unfit { path: path.clone(), why };
        let name = entry.file_name().into_string().map_err(|_| unfit("its name is not UTF-8"))?;
        let inside = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.metadata().map_err(failed(&path))?;
        let node = if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(failed(&path))?;
            Node::Symlink(target.into_os_string().into_string().map_err(|_| unfit("its target is not UTF-8"))?)
        } else if kind.is_file() {
            Node::File { content: read(&path)?, executable: kind.permissions().mode() & 0o100 != 0 }
        } else if kind.is_dir() {
            if depth >= MAX_DEPTH {
                return Err(unfit("it is nested too deeply"));
            }
            insert(nodes, inside.clone(), Node::Directory);
            add_tree(nodes, &path, &inside, depth + 1)?;
            continue;
        } else {
            return Err(unfit("it is not a file, directory or symbolic link"));
        };
        if nodes.len() >= MAX_ENTRIES {
            return Err(unfit("there are more than 100000 files"));
        }
        insert(nodes, inside, node);
    }
    Ok(())
}

/// Writes the nodes as one archive, each directory before its contents.
fn archive(nodes: &BTreeMap<String, Node>, out: &mut Vec<u8>) -> io::Result<()> {
    for (number, (name, node)) in (1..).zip(nodes) {
        let builder = newc::Builder::new(name).ino(number);
        let (builder, content) = match node {
            Node::Directory => (builder.mode(0o755).set_mode_file_type(ModeFileType::Directory), &[][..]),
            Node::File { content, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                (builder.mode(mode).set_mode_file_type(ModeFileType::Regular), &content[..])
            }
            Node::Symlink(target) => (builder.mode(0o777).set_mode_file_type(ModeFileType::Symlink), target.as_bytes()),
            Node::Character(major, minor) => {
                let builder = builder.rdev_major(*major).rdev_minor(*minor);
                (builder.mode(0o600).set_mode_file_type(ModeFileType::Char), &[][..])
            }
        };
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut writer = builder.write(&mut *out, size);
        writer.write_all(content)?;
        writer.finish()?;
    }
    newc::trailer(out)?;
    Ok(())
}

#[cfg(test)]
mod tests;
