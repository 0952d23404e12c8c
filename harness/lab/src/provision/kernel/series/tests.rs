use super::*;
use crate::provision::Progress;

const BASE: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n";

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(fixture.path("base/mm")).unwrap();
        fs::create_dir(fixture.path("series")).unwrap();
        fs::write(fixture.path("base/mm/a.c"), BASE).unwrap();
        fs::write(fixture.path("base/mm/b.c"), BASE).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A patch that replaces `from` by `to` in the file, whose context is `before` and `after`.
    fn patch(&self, name: &str, file: &str, [before, from, to, after]: [&str; 4], line: u32) {
        let text = format!(
            "Subject: change\n\n--- a/{file}\n+++ b/{file}\n@@ -{line},3 +{line},3 @@\n {before}\n-{from}\n+{to}\n {after}\n"
        );
        fs::write(self.path("series").join(name), text).unwrap();
    }

    fn apply(&self) -> Result<(), ProvisionError> {
        let series = Series::read(&[self.path("series")])?;
        let mut step = Progress::quiet().step(1, 1, "x");
        series.apply(&self.path("base"), &self.path("tree"), &self.path("log"), &mut step)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

#[test]
fn patches_are_applied_in_the_order_of_their_names_to_a_copy() {
    let fixture = Fixture::new();
    fixture.patch("0002-second.patch", "mm/a.c", ["one", "zwei", "deux", "three"], 1);
    fixture.patch("0001-first.patch", "mm/a.c", ["one", "two", "zwei", "three"], 1);
    let new = "--- /dev/null\n+++ b/mm/new.c\n@@ -0,0 +1 @@\n+new\n";
    fs::write(fixture.path("series/0003-new.patch"), new).unwrap();
    fs::write(fixture.path("series/README"), "no patch\n").unwrap();
    fixture.apply().unwrap();
    assert_eq!(fixture.read("tree/mm/a.c"), BASE.replace("two", "deux"));
    assert_eq!(fixture.read("tree/mm/new.c"), "new\n");
    assert_eq!(fixture.read("base/mm/a.c"), BASE);
    assert!(!fixture.path("base/mm/new.c").exists());
    assert_eq!(list(&fixture.path("tree/mm")).unwrap().len(), 3);
}

#[test]
fn a_patch_that_does_not_apply_is_named_with_its_hunk() {
    let fixture = Fixture::new();
    fixture.patch("0001-fits.patch", "mm/a.c", ["one", "two", "zwei", "three"], 1);
    fixture.patch("0002-does-not.patch", "mm/b.c", ["four", "fünf", "cinq", "six"], 4);
    let error = fixture.apply().unwrap_err().to_string();
    assert!(error.contains("0002-does-not.patch does not apply (mm/b.c: hunk #1 FAILED at 4)"), "{error}");
    assert_eq!(fixture.read("base/mm/a.c"), BASE);
}

#[test]
fn a_patch_does_not_fit_a_slightly_different_context() {
    let fixture = Fixture::new();
    // GNU patch would take this one with fuzz 1.
    fixture.patch("0001.patch", "mm/a.c", ["one", "two", "zwei", "THREE"], 1);
    assert!(matches!(fixture.apply(), Err(ProvisionError::PatchRefused { .. })));
}

#[test]
fn a_patch_that_is_already_applied_is_reported() {
    let fixture = Fixture::new();
    fixture.patch("0001.patch", "mm/a.c", ["one", "zwei", "two", "three"], 1);
    let error = fixture.apply().unwrap_err().to_string();
    assert!(error.contains("mm/a.c: already applied"), "{error}");
}

#[test]
fn a_patch_cannot_write_outside_the_tree() {
    let fixture = Fixture::new();
    let outside = "--- /dev/null\n+++ b/../../outside\n@@ -0,0 +1 @@\n+new\n";
    fs::write(fixture.path("series/0001.patch"), outside).unwrap();
    assert!(matches!(fixture.apply(), Err(ProvisionError::PatchRefused { .. })));
    assert!(!fixture.path("outside").exists());
}

#[test]
fn a_folder_that_is_missing_or_has_no_patches_is_an_error() {
    let fixture = Fixture::new();
    let error = fixture.apply().unwrap_err().to_string();
    assert!(error.contains("*.patch is missing"), "{error}");
    assert!(Series::read(&["/nonexistent".into()]).is_err());
}

#[test]
fn the_key_depends_on_contents_order_and_base_but_not_on_names() {
    let fixture = Fixture::new();
    let key = |base: &str| {
        let series = Series::read(&[fixture.path("series")]).unwrap();
        series.key(&Key::of(&[("base", base.as_bytes())]))
    };
    fs::write(fixture.path("series/1.patch"), "one").unwrap();
    let one = key("base");
    assert_ne!(one, key("another"));
    fs::rename(fixture.path("series/1.patch"), fixture.path("series/2.patch")).unwrap();
    assert_eq!(one, key("base"));
    fs::write(fixture.path("series/1.patch"), "two").unwrap();
    let two = key("base");
    fs::rename(fixture.path("series/1.patch"), fixture.path("series/3.patch")).unwrap();
    assert!(one != two && two != key("base"));
}

#[test]
fn checking_a_series_does_not_modify_the_tree() {
    let fixture = Fixture::new();
    fixture.patch("0001.patch", "mm/a.c", ["one", "two", "NEW", "three"], 1);
    let fits = || {
        let mut step = Progress::quiet().step(1, 1, "x");
        Series::read(&[fixture.path("series")]).unwrap().fits(&fixture.path("base"), &fixture.path("log"), &mut step)
    };
    fits().unwrap();
    assert_eq!(fixture.read("base/mm/a.c"), BASE);
    fs::write(fixture.path("base/mm/a.c"), BASE.replace("two", "dos")).unwrap();
    assert!(matches!(fits(), Err(ProvisionError::PatchRefused { .. })));
}
