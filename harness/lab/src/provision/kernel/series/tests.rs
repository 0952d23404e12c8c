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

/// A series whose patch is for "two" or, in a refresh each, for "zwei" and "deux".
fn with_refreshes() -> Fixture {
    let fixture = Fixture::new();
    fixture.patch("0001.patch", "mm/a.c", ["one", "two", "NEW", "three"], 1);
    let main = fixture.read("series/0001.patch");
    for (kernel, word) in [("up-to-6.12.9", "zwei"), ("up-to-6.12.107", "deux")] {
        let folder = fixture.path("series/refreshed").join(kernel);
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("0001.patch"),
            main.replace("-two", &format!("-{word}")).replace("NEW", &format!("new {word}")),
        )
        .unwrap();
    }
    fixture
}

#[test]
fn a_refresh_is_used_only_where_the_series_own_patch_does_not_fit() {
    for (base, patched) in [("two", "NEW"), ("zwei", "new zwei"), ("deux", "new deux")] {
        let fixture = with_refreshes();
        fs::write(fixture.path("base/mm/a.c"), BASE.replace("two", base)).unwrap();
        fixture.apply().unwrap();
        assert_eq!(fixture.read("tree/mm/a.c"), BASE.replace("two", patched));
    }
}

#[test]
fn the_refresh_for_the_newest_kernel_by_number_is_tried_first() {
    let fixture = with_refreshes();
    let order = refreshes(&fixture.path("series")).unwrap();
    let kernels: Vec<_> = order.iter().map(|path| path.parent().unwrap().file_name().unwrap().to_owned()).collect();
    assert_eq!(kernels, ["up-to-6.12.107", "up-to-6.12.9"]);
}

#[test]
fn if_nothing_fits_the_error_is_about_the_series_own_patch() {
    let fixture = with_refreshes();
    fs::write(fixture.path("base/mm/a.c"), BASE.replace("two", "dos")).unwrap();
    let error = fixture.apply().unwrap_err().to_string();
    assert!(error.contains("series/0001.patch does not apply (mm/a.c: hunk #1 FAILED at 1)"), "{error}");
}

#[test]
fn a_refresh_without_its_patch_is_an_error() {
    let fixture = with_refreshes();
    fs::rename(fixture.path("series/0001.patch"), fixture.path("series/0002.patch")).unwrap();
    let error = fixture.apply().unwrap_err().to_string();
    assert!(error.contains("0001.patch is missing") && error.contains("refresh"), "{error}");
}

#[test]
fn a_refresh_counts_in_the_key() {
    let fixture = with_refreshes();
    let key = || Series::read(&[fixture.path("series")]).unwrap().key(&Key::of(&[]));
    let before = key();
    fs::remove_file(fixture.path("series/refreshed/up-to-6.12.9/0001.patch")).unwrap();
    assert_ne!(before, key());
}

#[test]
fn checking_a_series_does_not_modify_the_tree() {
    let fixture = with_refreshes();
    let fits = || {
        let mut step = Progress::quiet().step(1, 1, "x");
        Series::read(&[fixture.path("series")]).unwrap().fits(&fixture.path("base"), &fixture.path("log"), &mut step)
    };
    fits().unwrap();
    assert_eq!(fixture.read("base/mm/a.c"), BASE);
    fs::write(fixture.path("base/mm/a.c"), BASE.replace("two", "dos")).unwrap();
    assert!(matches!(fits(), Err(ProvisionError::PatchRefused { .. })));
}

#[test]
fn this_projects_series_are_chosen_by_the_kernel_they_are_made_for() {
    let series = workspace().unwrap().join("guest-tests/kernel/series");
    let both = |folder: &Path| vec![folder.join("private-nodes"), folder.join("cram")];
    assert_eq!(own("linux-source-6.12").unwrap(), both(&series));
    assert_eq!(own("linux-source-7.3").unwrap(), both(&series.join("7.3")));
    for other in ["linux-source-6.1", "linux-source-9.9", "linux-source-refreshed", "linux-image-7.3"] {
        assert_eq!(own(other).unwrap(), Vec::<PathBuf>::new(), "{other}");
    }
}

#[test]
fn a_patch_has_the_same_name_for_every_kernel() {
    let names = |package: &str| -> BTreeSet<_> {
        let patches = own(package).unwrap().into_iter().flat_map(|folder| list(&folder).unwrap());
        patches.filter(|path| is_patch(path)).map(|path| path.file_name().unwrap().to_owned()).collect()
    };
    let long_term = names("linux-source-6.12");
    let newer = names("linux-source-7.3");
    assert!(newer.len() > 35, "{newer:?}");
    assert_eq!(newer.difference(&long_term).collect::<Vec<_>>(), Vec::<&std::ffi::OsString>::new());
}
