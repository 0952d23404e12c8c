//! Finds the modules that a guest needs in a folder of built modules, in load order.
//!
//! The folder may come from `make modules_install` or a distribution, or be a build tree. Dependencies are read from the
//! modules themselves (`depends=` in `.modinfo`, written by modpost), so `modules.dep` is not needed.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use elf::ElfBytes;
use elf::endian::AnyEndian;

use crate::process::run::RunError;
use crate::provision::cache::{Cache, Key, Product, files_below};
use crate::provision::error::{IoContext, ProvisionError};

/// The modules that a guest uses, besides their dependencies. The agent's channel and the disks come first. `cxl_acpi` comes
/// last, when the drivers for its devices are loaded.
const WANTED: [&str; 21] = [
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "pvpanic_pci",
    // ext4 asks for its checksum by name, not as a dependency.
    "crc32c_generic",
    "ext4",
    "zram",
    "hwpoison_inject",
    "mce_inject",
    "device_dax",
    "kmem",
    "dax_cxl",
    "dax_hmem",
    "cxl_core",
    "cxl_port",
    "cxl_pci",
    "cxl_mem",
    "cxl_pmem",
    "nd_pmem",
    "dax_pmem",
    NEEDED,
];
/// Modules that only scenarios load: they would take the device from other drivers, or memory for nothing.
const ON_DEMAND: [&str; 3] = ["cxl_cram", "cxl_mempolicy_sample", "test_hmm"];
/// The module without which there is no CXL window.
const NEEDED: &str = "cxl_acpi";
/// The suffixes of compressed modules, with the programs that decompress them.
const COMPRESSED: [(&str, &str); 3] = [(".ko.xz", "xz"), (".ko.gz", "gzip"), (".ko.zst", "zstd")];
/// Far more bytes than any module has. Bounds the output of a malicious file.
const MOST_BYTES: u64 = 256 << 20;
/// The longest chain of dependencies accepted.
const DEEPEST: usize = 64;

/// A module's `.modinfo`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Info {
    /// Names of the modules to load before.
    depends: Vec<String>,
    /// The release it was built for, as `uname -r` prints it.
    release: String,
}

/// The modules from `folder` that a guest with kernel `release` needs, in load order, decompressed.
///
/// An empty `release` is unknown and fits every module.
pub(super) fn find(cache: &Cache, folder: &Path, release: &str) -> Result<Vec<PathBuf>, ProvisionError> {
    let (order, contents) = wanted(&folder_of(folder, release), release)?;
    if order.iter().all(|path| decompressor(path).is_none()) {
        return Ok(order);
    }
    let files: Vec<(String, &[u8])> =
        order.iter().filter_map(|path| Some((module_name(path)? + ".ko", contents.get(path)?.as_slice()))).collect();
    let inputs: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    let product = cache.product(Product::Modules, &Key::of(&inputs), |product| {
        for (name, bytes) in &files {
            let path = product.join(name);
            fs::write(&path, bytes).context("write", &path)?;
        }
        Ok(())
    })?;
    Ok(files.iter().map(|(name, _)| product.join(name)).collect())
}

/// The modules from a release's folder that a guest needs, in load order: file names without the suffix of a compression, and
/// contents.
pub(super) fn contents(folder: &Path, release: &str) -> Result<Vec<(String, Vec<u8>)>, ProvisionError> {
    let (order, mut contents) = wanted(folder, release)?;
    let file = |path: PathBuf| Some((module_name(&path)? + ".ko", contents.remove(&path)?));
    Ok(order.into_iter().filter_map(file).collect())
}

/// Modules in load order, and the decompressed content of each.
type Wanted = (Vec<PathBuf>, BTreeMap<PathBuf, Vec<u8>>);

/// The modules that a guest needs.
fn wanted(folder: &Path, release: &str) -> Result<Wanted, ProvisionError> {
    let index = index(folder)?;
    if !index.contains_key(NEEDED) && !built_in(folder, NEEDED) {
        let hint = "build that kernel with CONFIG_CXL_ACPI=m, and give the folder that its modules were installed into";
        return Err(ProvisionError::Missing { path: folder.join("cxl_acpi.ko"), hint: hint.into() });
    }
    let mut contents = BTreeMap::new();
    let order = closure(&index, |path| {
        let bytes = content(path)?;
        let info = info(&bytes).map_err(|why| ProvisionError::Elf { path: path.into(), why })?;
        if !release.is_empty() && info.release != release {
            let why = format!("it was built for Linux {}, but the kernel is {release}", info.release);
            return Err(ProvisionError::Elf { path: path.into(), why });
        }
        contents.insert(path.to_owned(), bytes);
        Ok(info.depends)
    })?;
    Ok((order, contents))
}

/// Splits modules into those loaded at boot and those loaded on demand.
pub(super) fn split(modules: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let at_boot = |path: &PathBuf| module_name(path).is_none_or(|name| !ON_DEMAND.contains(&name.as_str()));
    modules.into_iter().partition(at_boot)
}

/// The folder of a release's modules, if `folder` is above it: the root of an installation, or `lib/modules`.
pub(super) fn folder_of(folder: &Path, release: &str) -> PathBuf {
    let inside =
        [folder.join("lib/modules").join(release), folder.join("usr/lib/modules").join(release), folder.join(release)];
    inside.into_iter().find(|folder| !release.is_empty() && folder.is_dir()).unwrap_or_else(|| folder.to_owned())
}

/// All modules below the folder by name. As for depmod, one in `updates` takes precedence over the kernel's own.
fn index(folder: &Path) -> Result<BTreeMap<String, PathBuf>, ProvisionError> {
    let mut index = BTreeMap::new();
    let is_update = |path: &Path| path.strip_prefix(folder).is_ok_and(|path| path.starts_with("updates"));
    for path in files_below(folder)? {
        if let Some(name) = module_name(&path)
            && (is_update(&path) || !index.contains_key(&name))
        {
            index.insert(name, path);
        }
    }
    Ok(index)
}

/// The kernel's list of built-in modules, beside its modules.
pub(super) fn builtin(folder: &Path) -> Option<PathBuf> {
    Some(folder.join("modules.builtin")).filter(|list| list.is_file())
}

/// Whether `modules.builtin` lists the module.
fn built_in(folder: &Path, name: &str) -> bool {
    let text = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    text.lines().any(|line| module_name(Path::new(line)).as_deref() == Some(name))
}

/// The kernel's name of the module in a file: `mce_inject` for "mce-inject.ko.xz".
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let endings = COMPRESSED.iter().map(|(ending, _)| *ending).chain([".ko"]);
    let stem = endings.filter_map(|ending| name.strip_suffix(ending)).next()?;
    Some(stem.replace('-', "_"))
}

fn decompressor(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    COMPRESSED.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, program)| *program)
}

/// The existing ones of the wanted modules, each after its dependencies.
fn closure(
    index: &BTreeMap<String, PathBuf>,
    mut depends: impl FnMut(&Path) -> Result<Vec<String>, ProvisionError>,
) -> Result<Vec<PathBuf>, ProvisionError> {
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    // On-demand modules first: their dependencies are then loaded at boot, and `cxl_acpi` is still the last.
    for name in ON_DEMAND.into_iter().chain(WANTED).filter(|name| index.contains_key(*name)) {
        // Modules under examination, each with its remaining dependencies.
        let mut open: Vec<(PathBuf, Vec<String>)> = Vec::new();
        let mut next = Some(name.to_owned());
        loop {
            if let Some(name) = next.take().filter(|name| !seen.contains(name)) {
                let path = index.get(&name).ok_or_else(|| {
                    let path = open.last().map_or_else(PathBuf::new, |(path, _)| path.clone());
                    let why = format!("it depends on {name}, which is not in the folder");
                    ProvisionError::Elf { path, why }
                })?;
                if open.len() >= DEEPEST {
                    let why = "its chain of dependencies is too long".into();
                    return Err(ProvisionError::Elf { path: path.clone(), why });
                }
                let mut needs = depends(path)?;
                needs.reverse();
                seen.insert(name);
                open.push((path.clone(), needs));
            }
            let Some((_, needs)) = open.last_mut() else { break };
            next = needs.pop();
            if next.is_none() {
                order.extend(open.pop().map(|(path, _)| path));
            }
        }
    }
    Ok(order)
}

/// The module's bytes, decompressed.
fn content(path: &Path) -> Result<Vec<u8>, ProvisionError> {
    let Some(program) = decompressor(path) else { return fs::read(path).context("read", path) };
    let file = File::open(path).context("read", path)?;
    let mut command = Command::new(program);
    command.args(["--decompress", "--stdout"]).stdin(file).stdout(Stdio::piped()).stderr(Stdio::null());
    let not_started = |source| ProvisionError::Run(RunError::NotStarted { program: program.into(), source });
    let mut child = command.spawn().map_err(not_started)?;
    let mut bytes = Vec::new();
    let read = match child.stdout.take() {
        Some(output) => output.take(MOST_BYTES).read_to_end(&mut bytes),
        None => Ok(0),
    };
    let status = child.wait().context("decompress", path)?;
    read.context("decompress", path)?;
    match status.success() {
        true => Ok(bytes),
        false => Err(ProvisionError::Elf { path: path.into(), why: format!("{program} cannot decompress it") }),
    }
}

fn info(bytes: &[u8]) -> Result<Info, String> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(bytes).map_err(|error| format!("it is not a module: {error}"))?;
    let section =
        file.section_header_by_name(".modinfo").ok().flatten().ok_or("it is not a module: it has no .modinfo")?;
    let (data, _) = file.section_data(&section).map_err(|error| format!("it is a damaged module: {error}"))?;
    let mut info = Info::default();
    for field in data.split(|byte| *byte == 0).map(String::from_utf8_lossy) {
        if let Some(names) = field.strip_prefix("depends=") {
            info.depends =
                names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect();
        } else if let Some(magic) = field.strip_prefix("vermagic=") {
            info.release = magic.split(' ').next().unwrap_or_default().to_owned();
        }
    }
    Ok(info)
}

#[cfg(test)]
mod tests;
