//! The initramfs: the agent as init, modules, tools; ACPI overrides in an archive of their own before it.
//! Two `newc` archives after one another (Documentation/driver-api/early-userspace/buffer-format.rst). The first
//! must not be compressed, for the kernel reads ACPI overrides from it before it can decompress. The same input gives
//! the same bytes: names are sorted, owners are root, times are zero.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cpio::newc::{self, ModeFileType};
use cxl_cram_guest::agent::{MODULES_DIR, ON_DEMAND_DIR};
use thiserror::Error;

use super::acpi::{AcpiError, Table};

/// Where the guest programs are in the guest, besides being its init.
pub const GUEST_PROGRAM: &str = "/usr/bin/cxl-cram-guest";

/// Where the kernel looks for ACPI overrides.
const ACPI_DIR: &str = "kernel/firmware/acpi";
/// Directories that the agent mounts on, or that programs expect.
const DIRECTORIES: [&str; 8] = ["dev", "mnt", "proc", "root", "run", "sys", "tmp", "usr/bin"];
/// Debian's merged `/usr`. Each is left out when the tools bring a directory of that name.
const MERGED_USR: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// The two archives meet on a multiple of this.
const ALIGN: usize = 512;
/// The deepest directory, and the most entries, that a tools root may have.
const MAX_DEPTH: usize = 32;
const MAX_ENTRIES: usize = 100_000;

/// Why there is no initramfs.
#[derive(Debug, Error)]
pub enum InitramfsError {
    /// A file of the host could not be read.
    #[error("make {path} readable")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that an archive cannot hold.
    #[error("take {path} out of the guest's tools: {why}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// An override that is no table.
    #[error("give a table that fits an ACPI override")]
    Table(#[from] AcpiError),
    /// The archive could not be written.
    #[error("make room for the initramfs")]
    Write(#[source] io::Error),
}

/// What goes in.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    /// The static guest program; becomes `/init`.
    pub agent: PathBuf,
    /// Kernel modules, in the order in which the agent loads them.
    pub modules: Vec<PathBuf>,
    /// Kernel modules that the agent loads only when it is told to.
    pub on_demand: Vec<PathBuf>,
    /// Directories whose content is laid over `/`, later ones over earlier ones.
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
    /// The bytes to give QEMU as `-initrd`.
    ///
    /// # Errors
    /// A file cannot be read, or an archive cannot hold it.
    pub fn build(&self) -> Result<Vec<u8>, InitramfsError> {
        let mut bytes = self.early_archive()?;
        archive(&self.root()?, &mut bytes).map_err(InitramfsError::Write)?;
        Ok(bytes)
    }

    /// The first archive alone: the ACPI overrides, to be put before another initramfs. Empty without tables.
    ///
    /// # Errors
    /// As [`Self::build`].
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
                return Err(AcpiError::Signature("table whose name is letters and digits").into());
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
        // Process 1 has no other standard output until it has mounted /dev.
        insert(&mut nodes, "dev/console".into(), Node::Character(5, 1));
        for tools in &self.tools {
            add_tree(&mut nodes, tools, "", 0)?;
        }
        insert(&mut nodes, "init".into(), Node::File { content: read(&self.agent)?, executable: true });
        insert(&mut nodes, GUEST_PROGRAM[1..].into(), Node::Symlink("/init".into()));
        for (index, module) in self.modules.iter().enumerate() {
            let path = format!("{}/{index:02}-{}", &MODULES_DIR[1..], file_name(module)?);
            insert(&mut nodes, path, Node::File { content: read(module)?, executable: false });
        }
        for module in &self.on_demand {
            let path = format!("{}/{}", &ON_DEMAND_DIR[1..], file_name(module)?);
            insert(&mut nodes, path, Node::File { content: read(module)?, executable: false });
        }
        for name in MERGED_USR {
            if !nodes.contains_key(name) {
                insert(&mut nodes, format!("usr/{name}"), Node::Directory);
                insert(&mut nodes, name.into(), Node::Symlink(format!("usr/{name}")));
            }
        }
        Ok(nodes)
    }
}

/// Adds a node and the directories above it. A directory stays what it is.
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
                return Err(unfit("it is too deep"));
            }
            insert(nodes, inside.clone(), Node::Directory);
            add_tree(nodes, &path, &inside, depth + 1)?;
            continue;
        } else {
            return Err(unfit("it is no file, directory or symbolic link"));
        };
        if nodes.len() >= MAX_ENTRIES {
            return Err(unfit("there are too many files"));
        }
        insert(nodes, inside, node);
    }
    Ok(())
}

/// Writes the nodes as one archive, directories before what is in them.
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
#[path = "initramfs_tests.rs"]
mod tests;
