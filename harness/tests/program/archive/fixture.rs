//! A Debian archive of tiny packages, and a checkout with matching pins, patches and configuration.
//!
//! The archive is a folder with packages made by `dpkg-deb` and indexes written here. It is not signed, so the sources list
//! has `trusted=yes`, except in the test of signatures.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use cxl_cram_lab::provision::Options;
use sha2::{Digest, Sha256};

/// The targets of the kernel's Makefile that the harness uses, for a kernel of one C file.
const MAKEFILE: &str = "\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = @
allnoconfig:
\tcp $(KCONFIG_ALLCONFIG) $(O)/.config
bzImage:
\tmkdir -p $(O)/arch/x86/boot $(O)/include/config
\tcat mm/a.c > $(O)/arch/x86/boot/bzImage
\techo 6.12.@ > $(O)/include/config/kernel.release
\ttouch $(O)/vmlinux $(O)/System.map $(O)/modules.builtin
drivers/cxl/%.ko:
\tmkdir -p $(O)/drivers/cxl; echo module > $(O)/$@
";

/// The series' patch, which changes the line `two`. Its refresh changes `old`.
const PATCH: &str =
    "diff --git a/mm/a.c b/mm/a.c\n--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1,3 +1,3 @@\n one\n-two\n+PATCHED\n three\n";

/// A package file and its metadata.
#[derive(Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    depends: String,
    file: PathBuf,
    pub(crate) sha256: String,
}

impl Package {
    /// The line of a pin file.
    pub(crate) fn pin(&self) -> String {
        let Package { name, version, sha256, .. } = self;
        format!("{{ package = \"{name}\", version = \"{version}\", suite = \"test\", sha256 = \"{sha256}\" }}")
    }
}

pub(crate) struct Fixture {
    folder: tempfile::TempDir,
    pub(crate) cache: PathBuf,
}

impl Fixture {
    /// A checkout with a series of one patch and its refresh, and no archive yet.
    pub(crate) fn new() -> Fixture {
        let folder = tempfile::Builder::new().prefix("cxl-cram-archive-").tempdir().unwrap();
        Fixture { cache: folder.path().join("cache"), folder }.laid_out()
    }

    /// As [`Self::new`], with the cache in a folder of this name.
    pub(crate) fn with_cache(name: &str) -> Fixture {
        let fixture = Fixture::new();
        Fixture { cache: fixture.path(name), ..fixture }
    }

    fn laid_out(self) -> Fixture {
        let fixture = self;
        let kernel = fixture.path("checkout/guest-tests/kernel");
        for folder in ["private-nodes", "cram", "6.12/private-nodes", "6.12/refreshed/up-to-6.12.20/private-nodes"] {
            fs::create_dir_all(kernel.join("series").join(folder)).unwrap();
        }
        fs::write(kernel.join("guest.config"), "CONFIG_CXL_ACPI=m\n").unwrap();
        fs::write(kernel.join("minimal.config"), "CONFIG_64BIT=y\n").unwrap();
        fs::write(kernel.join("series/private-nodes/0001-change.patch"), "Subject: change\n\n---\n").unwrap();
        fs::write(kernel.join("series/6.12/private-nodes/0001-change.diff"), PATCH).unwrap();
        let refresh = PATCH.replace("-two", "-old").replace("PATCHED", "REFRESHED");
        fs::write(kernel.join("series/6.12/refreshed/up-to-6.12.20/private-nodes/0001-change.diff"), refresh).unwrap();
        let new = "Subject: new\n\n---\ndiff --git a/mm/new.c b/mm/new.c\nnew file mode 100644\n--- /dev/null\n+++ b/mm/new.c\n@@ -0,0 +1 @@\n+new\n";
        fs::write(kernel.join("series/cram/0001-new.patch"), new).unwrap();
        fs::create_dir_all(fixture.path("checkout/harness")).unwrap();
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A kernel source with this word in the second line of the file that the patch changes.
    pub(crate) fn kernel(&self, sublevel: u32, word: &str) -> Package {
        let tree = self.path(&format!("trees/{sublevel}-{word}/linux-source-6.12"));
        fs::create_dir_all(tree.join("mm")).unwrap();
        fs::write(tree.join("Makefile"), makefile(sublevel)).unwrap();
        fs::write(tree.join("mm/a.c"), format!("one\n{word}\nthree\n")).unwrap();
        let root = self.path(&format!("roots/{sublevel}-{word}"));
        fs::create_dir_all(root.join("usr/src")).unwrap();
        let archive = root.join("usr/src/linux-source-6.12.tar.xz");
        let mut tar = Command::new("tar");
        tar.arg("-cJf").arg(archive).arg("-C").arg(tree.parent().unwrap()).arg("linux-source-6.12");
        assert!(tar.status().unwrap().success());
        self.package("linux-source-6.12", &format!("6.12.{sublevel}-1"), "", &root)
    }

    /// A QEMU of that version, started through its own loader; the second package is its dependency.
    pub(crate) fn qemu(&self, version: &str) -> [Package; 2] {
        let root = self.path(&format!("roots/qemu-{version}"));
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--version*) echo 'QEMU emulator version {version}';; \
             *) echo 'name \"vfio-user-pci\"';; esac\n"
        );
        script_file(&root.join("usr/bin/qemu-system-x86_64"), &script);
        [self.package("qemu-system-x86", &format!("1:{version}-1"), "libtiny (>= 1)", &root), self.library("1.5-1")]
    }

    /// QEMU's dependency, the loader.
    pub(crate) fn library(&self, version: &str) -> Package {
        let root = self.path(&format!("roots/library-{version}"));
        // Called like a loader: --library-path FOLDERS PROGRAM ARGUMENTS.
        script_file(&root.join("usr/lib64/ld-linux-x86-64.so.2"), "#!/bin/sh\nshift 2\nexec sh \"$@\"\n");
        self.package("libtiny", version, "", &root)
    }

    /// The guest's tools, each the smallest possible program.
    pub(crate) fn tools(&self, version: &str) -> [Package; 3] {
        let source = self.path("tiny.c");
        fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let tiny = self.path("tiny");
        assert!(Command::new("gcc").args(["-static", "-o"]).arg(&tiny).arg(&source).status().unwrap().success());
        [("cxl", version), ("daxctl", "1"), ("busybox-static", "1")].map(|(name, version)| {
            let root = self.path(&format!("roots/{name}-{version}"));
            fs::create_dir_all(root.join("usr/bin")).unwrap();
            let program = if name == "busybox-static" { "busybox" } else { name };
            fs::copy(&tiny, root.join("usr/bin").join(program)).unwrap();
            self.package(name, version, "", &root)
        })
    }

    /// A distribution's kernel, and the package that depends on the current one. The kernel's name in its packages is not what
    /// their version says, as with Debian's.
    pub(crate) fn stock_kernel(&self, sublevel: u32) -> [Package; 2] {
        let release = format!("6.12.{sublevel}+deb13-amd64");
        let root = self.path(&format!("roots/stock-{sublevel}"));
        let modules = root.join("usr/lib/modules").join(&release).join("kernel/drivers/cxl");
        for folder in [&root.join("boot"), &modules] {
            fs::create_dir_all(folder).unwrap();
        }
        // The header of a bzImage: its magic, and where the release stands (200h after what 20Eh holds).
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x200_u16.to_le_bytes());
        image.extend(format!("{release} (me@here) #1\0").bytes());
        fs::write(root.join(format!("boot/vmlinuz-{release}")), image).unwrap();
        fs::write(root.join(format!("boot/config-{release}")), "CONFIG_CXL_ACPI=m\n").unwrap();
        for (name, depends) in [("cxl_port", ""), ("cxl_acpi", "cxl_port"), ("unrelated", "")] {
            let source = self.path("module.c");
            let field = |number: u32, text: &str| {
                format!("__attribute__((section(\".modinfo\"))) const char f{number}[] = \"{text}\";\n")
            };
            let text = field(1, &format!("depends={depends}")) + &field(2, &format!("vermagic={release} SMP"));
            fs::write(&source, text).unwrap();
            let module = modules.join(format!("{name}.ko"));
            let built = Command::new("gcc").args(["-c", "-o"]).arg(&module).arg(&source).status().unwrap();
            assert!(built.success() && Command::new("xz").arg(&module).status().unwrap().success());
        }
        let (name, version) = (format!("linux-image-{release}"), format!("6.12.{sublevel}-1"));
        let current = self.path(&format!("roots/stock-current-{sublevel}"));
        [
            self.package(&name, &version, "", &root),
            self.package("linux-image-amd64", &version, &format!("{name} (= {version})"), &current),
        ]
    }

    /// A package with one file.
    pub(crate) fn with_file(&self, name: &str, version: &str, depends: &str, path: &str, text: &str) -> Package {
        let root = self.path(&format!("roots/{name}-{version}"));
        script_file(&root.join(path), text);
        self.package(name, version, depends, &root)
    }

    /// Options for this checkout's pins, this archive and this cache.
    pub(crate) fn options(&self) -> Options {
        Options {
            cache_dir: Some(self.cache.clone()),
            pins: Some(self.path("checkout/harness/pins.toml")),
            apt_sources: Some(self.path("sources.list")),
            ..Options::default()
        }
    }

    fn package(&self, name: &str, version: &str, depends: &str, root: &Path) -> Package {
        fs::create_dir_all(root.join("DEBIAN")).unwrap();
        let depends = if depends.is_empty() { String::new() } else { format!("Depends: {depends}\n") };
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: T <t@example.org>\n{depends}Description: t\n"
        );
        fs::write(root.join("DEBIAN/control"), control).unwrap();
        let plain = version.replace(':', "%3a");
        let file = self.path(&format!("packages/{name}_{plain}_amd64.deb"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut build = Command::new("dpkg-deb");
        // The same content must give the same file at any time.
        build.args(["--root-owner-group", "--build"]).arg(root).arg(&file).env("SOURCE_DATE_EPOCH", "0");
        let build = build.output().unwrap();
        assert!(build.status.success(), "{build:?}");
        let sha256 = digest(&fs::read(&file).unwrap());
        Package { name: name.to_owned(), version: version.to_owned(), depends, file, sha256 }
    }

    /// Replaces the archive with one of exactly these packages.
    pub(crate) fn archive(&self, packages: &[Package]) {
        let root = self.path("archive");
        let _ = fs::remove_dir_all(&root);
        let index_folder = root.join("dists/test/main/binary-amd64");
        fs::create_dir_all(&index_folder).unwrap();
        fs::create_dir_all(root.join("pool")).unwrap();
        let mut index = String::new();
        for package in packages {
            let name = package.file.file_name().unwrap().to_str().unwrap();
            fs::copy(&package.file, root.join("pool").join(name)).unwrap();
            let size = fs::metadata(&package.file).unwrap().len();
            let Package { name: package_name, version, depends, sha256, .. } = package;
            write!(
                index,
                "Package: {package_name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: T <t@example.org>\n{depends}\
                 Filename: pool/{name}\nSize: {size}\nSHA256: {sha256}\nDescription: t\n\n"
            )
            .unwrap();
        }
        fs::write(index_folder.join("Packages"), &index).unwrap();
        let release = format!(
            "Origin: Test\nLabel: Test\nSuite: test\nCodename: test\nDate: Sun, 29 Nov 2026 00:00:00 UTC\n\
             Architectures: amd64\nComponents: main\nSHA256:\n {} {} main/binary-amd64/Packages\n",
            digest(index.as_bytes()),
            index.len()
        );
        fs::write(root.join("dists/test/Release"), release).unwrap();
        self.sources(&format!("deb [trusted=yes] file:{} test main\n", root.display()));
    }

    /// Writes the sources list that the harness fetches from.
    pub(crate) fn sources(&self, lines: &str) {
        fs::write(self.path("sources.list"), lines).unwrap();
    }

    /// Pins these packages.
    pub(crate) fn pin(&self, kernel: &Package, qemu: &[Package], tools: &[Package]) {
        let set = |packages: &[Package]| packages.iter().map(|p| format!("    {},\n", p.pin())).collect::<String>();
        let text = format!(
            "kernel-source = [\n{}]\nqemu = [\n{}]\nguest-tools = [\n{}]\n",
            set(std::slice::from_ref(kernel)),
            set(qemu),
            set(tools)
        );
        fs::write(self.path("checkout/harness/pins.toml"), text).unwrap();
    }

    /// Also pins this kernel of a distribution.
    pub(crate) fn pin_stock(&self, kernel: &Package) {
        let text = format!("{}kernel-debian = [\n    {},\n]\n", self.pins(), kernel.pin());
        fs::write(self.path("checkout/harness/pins.toml"), text).unwrap();
    }

    pub(crate) fn pins(&self) -> String {
        fs::read_to_string(self.path("checkout/harness/pins.toml")).unwrap()
    }

    /// Runs the provisioned QEMU with `--version`.
    pub(crate) fn qemu_version(&self) -> Ran {
        let cache = &self.cache;
        self.call(&["qemu", "--cache-dir", cache.to_str().unwrap(), "--", "--version"])
    }

    /// Runs the harness on this checkout, archive and cache.
    pub(crate) fn harness(&self, arguments: &[&str]) -> Ran {
        let cache = &self.cache;
        self.call(&[arguments, &["--cache-dir", cache.to_str().unwrap()]].concat())
    }

    fn call(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness"));
        command.args(arguments);
        command.env("CXL_CRAM_WORKSPACE", self.path("checkout")).env("CXL_CRAM_APT_SOURCES", self.path("sources.list"));
        command.env("PATH", path_without_qemu()).env_remove("CXL_CRAM_QEMU");
        Ran::of(command.output().unwrap())
    }
}

/// The Makefile of a kernel.
fn makefile(sublevel: u32) -> String {
    // `$@` belongs to make.
    MAKEFILE
        .replace("SUBLEVEL = @", &format!("SUBLEVEL = {sublevel}"))
        .replace("echo 6.12.@", &format!("echo 6.12.{sublevel}"))
}

/// `PATH` without QEMU; the harness would use an installed QEMU instead of the archive's.
fn path_without_qemu() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).filter(|folder| !folder.join("qemu-system-x86_64").exists());
    std::env::join_paths(folders).unwrap()
}

fn script_file(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The result of a call of the harness.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Asserts that it succeeded and printed this on standard output.
    #[track_caller]
    pub(crate) fn succeeds_with(&self, out: &str) -> &Ran {
        assert!(self.code == 0 && self.out.contains(out), "{out:?}: {} {}\n{}", self.code, self.out, self.err);
        self
    }

    /// Asserts that it failed with exit code 1, and that its error contains these words.
    #[track_caller]
    pub(crate) fn fails_with(&self, words: &[&str]) -> &Ran {
        let error = self.err.rsplit("error: ").next().unwrap_or_default();
        assert!(self.code == 1, "{} {}\n{}", self.code, self.out, self.err);
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}\n{}", self.err);
        }
        self
    }

    /// Asserts that a line of progress or notes contains this.
    #[track_caller]
    pub(crate) fn notes(&self, text: &str) -> &Ran {
        assert!(self.err.lines().any(|line| line.contains(text)), "{text:?}: {}", self.err);
        self
    }

    /// Asserts that no line contains this.
    #[track_caller]
    pub(crate) fn does_not_note(&self, text: &str) -> &Ran {
        assert!(!self.err.contains(text), "{text:?}: {}", self.err);
        self
    }
}
