use super::*;

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    /// A tree that was built in place, in the folder "tree".
    fn new() -> Fixture {
        let fixture = Fixture { folder: tempfile::tempdir().unwrap() };
        fixture.write(".gitignore", ".*\n!.gitignore\n*.o\n/include/config/\n/include/generated/\n");
        fixture.write("Makefile", "all:\n");
        fixture.write("mm/swap.c", "swap\n");
        fixture.write("mm/swap.o", "object\n");
        fixture.write("vmlinux", "object\n");
        fixture.write(".config", "CONFIG_A=y\n");
        fixture.write("include/config/auto.conf", "CONFIG_A=y\n");
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path("tree").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn update(&self) -> Result<(), ProvisionError> {
        update(&self.path("tree"), &self.path("view"), &self.path("git"))
    }

    /// The files in the view.
    fn view(&self) -> Vec<String> {
        self.update().unwrap();
        let present = prune(&self.path("view"), Path::new(""), &|_| true).unwrap();
        present.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    fn git(&self, arguments: &[&str]) {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]).args(arguments);
        let output = git.current_dir(self.path("tree")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn the_view_of_a_tree_built_in_place_has_its_sources_and_is_clean() {
    let fixture = Fixture::new();
    assert!(is_built_in_place(&fixture.path("tree")));
    assert_eq!(fixture.view(), ["Makefile", "mm/swap.c"]);
    assert!(!is_built_in_place(&fixture.path("view")));
    assert_eq!(fs::read_to_string(fixture.path("view/mm/swap.c")).unwrap(), "swap\n");
}

#[test]
fn the_tree_itself_is_left_alone() {
    let fixture = Fixture::new();
    let before = crate::provision::cache::files_below(&fixture.path("tree")).unwrap();
    fixture.update().unwrap();
    assert_eq!(crate::provision::cache::files_below(&fixture.path("tree")).unwrap(), before);
    assert!(!fixture.path("tree/.git").exists());
}

#[test]
fn a_view_follows_files_that_come_and_go() {
    let fixture = Fixture::new();
    fixture.update().unwrap();
    fixture.write("mm/cram/new.c", "new\n");
    fs::remove_file(fixture.path("tree/mm/swap.c")).unwrap();
    assert_eq!(fixture.view(), ["Makefile", "mm/cram/new.c"]);
    // A file takes the place of a folder, and the other way round.
    fs::remove_dir_all(fixture.path("tree/mm/cram")).unwrap();
    fixture.write("mm/cram", "file\n");
    assert_eq!(fixture.view(), ["Makefile", "mm/cram"]);
    fs::remove_file(fixture.path("tree/mm/cram")).unwrap();
    fixture.write("mm/cram/back.c", "back\n");
    assert_eq!(fixture.view(), ["Makefile", "mm/cram/back.c"]);
}

#[test]
fn uncommitted_files_and_deletions_count_in_a_repository() {
    let fixture = Fixture::new();
    fixture.git(&["init", "--quiet"]);
    fixture.git(&["add", "."]);
    fixture.git(&["commit", "--quiet", "-m", "x"]);
    fixture.write("mm/untracked.c", "new\n");
    fs::remove_file(fixture.path("tree/mm/swap.c")).unwrap();
    assert_eq!(fixture.view(), ["Makefile", "mm/untracked.c"]);
    assert!(!fixture.path("git").exists());
}

#[test]
fn debians_gitignore_does_not_hide_the_sources() {
    let fixture = Fixture::new();
    fixture.write(".gitignore", ".*\n!.gitignore\n*.o\n/include/config/\n/*\n!/debian/\n");
    fixture.write("localversion-rt", "-rt1\n");
    assert_eq!(fixture.view(), ["Makefile", "localversion-rt", "mm/swap.c"]);
}

#[test]
fn a_tree_without_gitignore_is_refused_with_the_remedy() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.path("tree/.gitignore")).unwrap();
    let error = fixture.update().unwrap_err().to_string();
    assert!(error.contains("make mrproper"), "{error}");
}
