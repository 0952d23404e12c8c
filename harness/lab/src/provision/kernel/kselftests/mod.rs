//! Builds the selftests of a kernel tree (`tools/testing/selftests`) and installs them into a root folder for the guest.
//!
//! `make install` of the tree does it, so a collection is built as its own Makefile says. Three things are ours. The compiler
//! takes headers and libraries from Debian's packages, those that the guest has, and not from this machine. The Makefiles
//! write beside their sources (`local_config.h`), so the collections are copied; the tree is only read. And a program
//! that does not build is left out and named: make would install nothing of its collection.

mod listing;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::build::{BUILD_LIMITS, kernel_make};
use super::config::Fragment;
use super::{mirror, place, source};
use crate::process::run::{Limits, new_log, run};
use crate::provision::cache::{Cache, Key, Scratch, list, remove};
use crate::provision::elf::is_elf;
use crate::provision::error::{IoContext, ProvisionError};
use crate::provision::pins::read_small;
use crate::workspace::workspace;
use cxl_cram_kit::progress::Step;

pub use self::listing::{Collection, Selftest, Unbuilt};

/// Where the guest has them: a folder for each collection.
pub(crate) const IN_GUEST: &str = "/usr/lib/kselftests";
/// Where a kernel tree has them.
const FOLDER: &str = "tools/testing/selftests";
/// Where make puts their objects, below its folder for objects.
const BUILT: &str = "kselftest";
/// The list of tests that make installs.
const LIST: &str = "kselftest-list.txt";
/// Where this project keeps what a collection's own `config` forgets.
const OUR_CONFIGS: &str = "guest-tests/kernel/selftests";
/// Files that the Makefiles write beside their sources. One that the developer's make wrote must not count here.
const WRITTEN: [&str; 2] = ["local_config.h", "local_config.mk"];
/// Debian's folder for the architecture.
const MULTIARCH: &str = "x86_64-linux-gnu";
/// khugepaged.c of Linux 6.12 uses it without the header that defines it. The value is the same in all.
const FLAGS: &str = "-DKSFT_SKIP=4";
/// A target that prints the programs that a collection's Makefile builds.
const SHOW: &str = "cxl-cram-show: ; @echo '@@' $(TEST_GEN_PROGS) $(TEST_GEN_PROGS_EXTENDED) $(TEST_GEN_FILES)";
const COPY_LIMITS: Limits = Limits::minutes(10, 10);
const LOCK_LIMIT: Duration = Duration::from_secs(60 * 60);
/// The most of a compiler's message that a reason quotes.
const LONGEST_REASON: usize = 200;

/// Built selftests.
#[derive(Debug)]
pub struct Kselftests {
    /// A root folder for the guest.
    pub root: PathBuf,
    /// The collections, in the order in which they were asked for.
    pub collections: Vec<Collection>,
    /// Removed when this is dropped.
    _folder: TempDir,
}

/// The collections that a tree has.
///
/// # Errors
/// It is not a kernel tree.
pub fn collections(tree: &Path) -> Result<Vec<String>, ProvisionError> {
    source::version(tree)?;
    let makefile = tree.join(FOLDER).join("Makefile");
    let text = fs::read_to_string(&makefile).context("read", &makefile)?;
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("TARGETS"))
        .filter_map(|line| line.trim_start().strip_prefix("+=").or(line.trim_start().strip_prefix('=')))
        .flat_map(str::split_whitespace)
        .filter(|name| tree.join(FOLDER).join(name).join("Makefile").is_file())
        .map(str::to_owned)
        .collect();
    // One that the list forgets, or that is not played by default, is a collection too.
    for path in list(&tree.join(FOLDER))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.join("Makefile").is_file() && !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Checks that a tree has these collections.
///
/// # Errors
/// It has not; the error names those with a similar name, or all.
pub fn check(tree: &Path, wanted: &[String]) -> Result<(), ProvisionError> {
    let have = collections(tree)?;
    let Some(missing) = wanted.iter().find(|name| !have.contains(name)) else { return Ok(()) };
    let names: Vec<&str> = have.iter().map(String::as_str).collect();
    let near = similar::get_close_matches(missing.as_str(), &names, 3, 0.6);
    let have = if near.is_empty() { names } else { near };
    let (tree, collection) = (tree.to_owned(), missing.clone());
    Err(ProvisionError::NoCollection { tree, collection, have: have.join(", ") })
}

/// The files with the options that a collection wants of its kernel.
///
/// # Errors
/// There is no checkout.
pub fn wishes(tree: &Path, collection: &str) -> Result<Vec<PathBuf>, ProvisionError> {
    let ours = workspace()?.join(OUR_CONFIGS).join(format!("{}.config", collection.replace('/', "-")));
    let files = [tree.join(FOLDER).join(collection).join("config"), ours];
    Ok(files.into_iter().filter(|file| file.is_file()).collect())
}

/// The lines of these files that a kernel's configuration does not have. What is built in is there as a module, too.
///
/// # Errors
/// A file cannot be read.
pub fn unmet(config: &str, wishes: &[PathBuf]) -> Result<Vec<String>, ProvisionError> {
    let mut text = String::new();
    for file in wishes {
        text += &(read_small(file)? + "\n");
    }
    let wished = Fragment::parse(&text);
    let lines: std::collections::HashSet<&str> = config.lines().collect();
    let built_in =
        |line: &str| line.strip_suffix("=m").is_some_and(|option| lines.contains(format!("{option}=y").as_str()));
    Ok(wished.dropped(config).into_iter().filter(|line| !built_in(line)).map(str::to_owned).collect())
}

/// Builds collections of a tree with the headers and libraries in `packages`.
pub(in crate::provision) fn build(
    cache: &Cache,
    tree: &Path,
    wanted: &[String],
    packages: &Path,
    step: &mut Step,
) -> Result<Kselftests, ProvisionError> {
    let tree = tree.canonicalize().context("find", tree)?;
    check(&tree, wanted)?;
    let inputs = [("tree", tree.as_os_str().as_encoded_bytes()), ("packages", packages.as_os_str().as_encoded_bytes())];
    let scratch = Scratch::Selftests(Key::of(&inputs));
    let name = scratch.name();
    let _lock = cache.lock(&name, LOCK_LIMIT)?;
    let folder = cache.scratch(scratch)?;
    if !place::make_can_name(&folder) || !place::make_can_name(packages) {
        return Err(ProvisionError::UnbuildablePath { path: cache.root().into() });
    }
    let log = cache.log(&name)?;
    new_log(&log)?;

    let source = match mirror::is_built_in_place(&tree) {
        true => {
            step.phase("linking the tree's sources", 0);
            mirror::update(&tree, &folder.join("mirror"), &folder.join("git"))?;
            folder.join("mirror")
        }
        false => tree,
    };
    let objects = folder.join("objects");
    fs::create_dir_all(&objects).context("create", &objects)?;
    step.phase("making the kernel's headers", 0);
    let mut make = kernel_make(&source, &objects);
    make.arg("headers");
    run("making the kernel's headers", make, &log, BUILD_LIMITS, |line| step.advance(0, line.trim()))?;
    let view = folder.join("view");
    step.phase("copying the selftests", 0);
    copied(&source, &view)?;
    let site = Site { tests: view.join(FOLDER), objects, compiler: compiler(&folder.join("root"), packages, &log)? };

    let installed = tempfile::Builder::new().prefix("installed-").tempdir_in(&folder);
    let installed = installed.context("create a folder in", &folder)?;
    let into = installed.path().join(&IN_GUEST[1..]);
    fs::create_dir_all(&into).context("create", &into)?;
    step.phase(&format!("building the selftests {}", wanted.join(" ")), 0);
    let why = site.install(wanted, &into, &log, step)?;
    let mut collections = Vec::new();
    let listed = fs::read_to_string(into.join(LIST)).unwrap_or_default();
    for name in wanted {
        let programs = site.programs(name, &log)?;
        collections.push(listing::collection(name, &into.join(name), &listed, &programs, &|program: &Path| {
            why.get(program).cloned().unwrap_or_else(|| format!("see {}", log.display()))
        })?);
    }
    Ok(Kselftests { root: installed.path().to_owned(), collections, _folder: installed })
}

/// Where the collections are built, and with which compiler.
struct Site {
    tests: PathBuf,
    objects: PathBuf,
    compiler: String,
}

impl Site {
    fn make(&self, folder: &Path) -> Command {
        let mut make = kernel_make(folder, &self.objects);
        make.arg(format!("CC={}", self.compiler)).arg(format!("USERCFLAGS={FLAGS}")).arg("SKIP_TARGETS=");
        make.env_remove("LLVM");
        make
    }

    /// Builds and installs collections. Returns why programs were not built, by their files.
    fn install(
        &self,
        wanted: &[String],
        into: &Path,
        log: &Path,
        step: &mut Step,
    ) -> Result<BTreeMap<PathBuf, String>, ProvisionError> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let mut make = self.make(&self.tests);
        // Without -i, a program that does not build keeps all others from being installed. With -O, its messages stay together.
        make.args(["-i", "-O", "install"]).arg(format!("-j{cores}")).arg(format!("TARGETS={}", wanted.join(" ")));
        let mut path = std::ffi::OsString::from("KSFT_INSTALL_PATH=");
        path.push(into);
        make.arg(path);
        let (mut why, mut message) = (BTreeMap::new(), None);
        run("building the selftests", make, log, BUILD_LIMITS, |line| {
            if is_error(line) && message.is_none() {
                message = Some(line.trim().chars().take(LONGEST_REASON).collect::<String>());
            } else if let Some(target) = failed_target(line) {
                why.insert(PathBuf::from(target), message.take().unwrap_or_else(|| line.trim().to_owned()));
            } else if line.starts_with("  CC ") || line.starts_with("gcc ") {
                message = None;
            }
            step.advance(0, line.trim());
        })?;
        Ok(why)
    }

    /// The files that a collection's Makefile would have built.
    fn programs(&self, collection: &str, log: &Path) -> Result<Vec<PathBuf>, ProvisionError> {
        let mut make = self.make(&self.tests.join(collection));
        let mut output = std::ffi::OsString::from("OUTPUT=");
        output.push(self.objects.join(BUILT).join(collection));
        make.arg(output).args(["--silent", "--no-print-directory", "--eval", SHOW, "cxl-cram-show"]);
        let mut files = Vec::new();
        run("listing the selftests", make, log, BUILD_LIMITS, |line| {
            files.extend(line.strip_prefix("@@").into_iter().flat_map(str::split_whitespace).map(PathBuf::from));
        })?;
        Ok(files)
    }
}

/// Whether a compiler or linker says here what is wrong.
fn is_error(line: &str) -> bool {
    ["error: ", "undefined reference", "cannot find ", "No rule to make target", "command not found"]
        .iter()
        .any(|sign| line.contains(sign))
}

/// The file that make has not built: `make[1]: [Makefile:203: /objects/kselftest/mm/cow] Error 1 (ignored)`.
fn failed_target(line: &str) -> Option<&str> {
    let (before, _) = line.strip_prefix("make")?.split_once("] Error ")?;
    let (_, target) = before.rsplit_once(": ")?;
    Some(target)
}

/// The compiler's command line, which takes everything from the packages.
///
/// The linker takes the paths in `libc.so` for paths in the root only if that file lies in it, links resolved. So the root has
/// the packages' files, as further names of theirs, and the links of a merged /usr.
fn compiler(sysroot: &Path, packages: &Path, log: &Path) -> Result<String, ProvisionError> {
    if !sysroot.exists() {
        let making = sysroot.with_extension("making");
        remove(&making)?;
        fs::create_dir_all(&making).context("create", &making)?;
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--link", "--"]).arg(packages.join("usr")).arg(&making);
        run("copying headers and libraries", copy, log, COPY_LIMITS, |_| {})?;
        for name in ["lib", "lib64"] {
            let link = making.join(name);
            symlink(Path::new("usr").join(name), &link).context("make", &link)?;
        }
        fs::rename(&making, sysroot).context("rename to", sysroot)?;
    }
    let root = sysroot.display();
    // Debian's compiler knows its multi-arch folders; others do not.
    Ok(format!(
        "gcc --sysroot={root} -B{root}/usr/lib/{MULTIARCH} -L{root}/usr/lib/{MULTIARCH} -idirafter {root}/usr/include/{MULTIARCH}"
    ))
}

/// Makes `view` a tree whose selftests are copies, and everything else is a link to the source.
fn copied(source: &Path, view: &Path) -> Result<(), ProvisionError> {
    let parts: Vec<&str> = FOLDER.split('/').collect();
    let (mut from, mut to) = (source.to_owned(), view.to_owned());
    for part in &parts {
        fs::create_dir_all(&to).context("create", &to)?;
        for path in list(&from)? {
            let name = path.file_name().unwrap_or_default();
            let link = to.join(name);
            if name != *part && fs::read_link(&link).ok().as_ref() != Some(&path) {
                let _ = fs::remove_file(&link);
                symlink(&path, &link).context("make", &link)?;
            }
        }
        (from, to) = (from.join(part), to.join(part));
    }
    copy(&from, &to)
}

/// Copies what has changed. Built programs stay behind, and so does what a Makefile wrote.
fn copy(from: &Path, to: &Path) -> Result<(), ProvisionError> {
    fs::create_dir_all(to).context("create", to)?;
    for path in list(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        let kind = fs::symlink_metadata(&path).context("examine", &path)?;
        // In a mirror, a file is a link to the tree's.
        let file = fs::metadata(&path).ok().filter(fs::Metadata::is_file);
        if kind.is_dir() {
            copy(&path, &target)?;
        } else if let Some(file) = file {
            let same = |there: fs::Metadata| (there.len(), there.modified().ok()) == (file.len(), file.modified().ok());
            let written = WRITTEN.iter().any(|name| path.ends_with(name));
            if written || fs::symlink_metadata(&target).is_ok_and(same) || is_program(&path)? {
                continue;
            }
            let _ = fs::remove_file(&target);
            fs::copy(&path, &target).context("copy", &path)?;
            let modified = file.modified().context("examine", &path)?;
            let copied = File::options().write(true).open(&target).context("open", &target)?;
            copied.set_modified(modified).context("date", &target)?;
        }
    }
    Ok(())
}

/// Whether a file was built.
fn is_program(path: &Path) -> Result<bool, ProvisionError> {
    let mut start = Vec::new();
    let file = File::open(path).context("read", path)?;
    file.take(4).read_to_end(&mut start).context("read", path)?;
    Ok(is_elf(&start))
}

#[cfg(test)]
mod tests;
