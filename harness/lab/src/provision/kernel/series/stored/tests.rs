use super::*;

/// A series of two patches for two kernels. The first creates a file, and changes another in each; the second is only for 6.12.
struct Fixture {
    folder: tempfile::TempDir,
}

const MESSAGE: &str =
    "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] mm: do\n\nWhy.\n";
const NEW: &str =
    "diff --git a/mm/new.c b/mm/new.c\nnew file mode 100644\n--- /dev/null\n+++ b/mm/new.c\n@@ -0,0 +1 @@\n+new\n";

fn hook(line: &str) -> String {
    format!("diff --git a/mm/a.c b/mm/a.c\n--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1 +1 @@\n-{line}\n+hook\n")
}

fn patch(sections: &[&str]) -> String {
    format!("{MESSAGE}---\n mm/a.c | 2 +-\n\n{}-- \n2.47.3\n\n", sections.concat())
}

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture { folder: tempfile::tempdir().unwrap() };
        fixture.write("private-nodes/0001-do.patch", &format!("{MESSAGE}\n---\n\n{NEW}"));
        fixture.write("private-nodes/0002-fix.patch", &format!("{MESSAGE}\n---\n\n"));
        fixture.write("7.3/private-nodes/0001-do.diff", &hook("newer"));
        fixture.write("6.12/private-nodes/0001-do.diff", &hook("older"));
        fixture.write("6.12/private-nodes/0002-fix.diff", &hook("hook"));
        fixture
    }

    fn stored(&self) -> Stored {
        Stored { root: self.folder.path().join("stored") }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.stored().root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.stored().root.join(name)).unwrap()
    }

    /// The patches for a kernel, as `git am` takes them.
    fn make(&self, kernel: &str) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        self.stored().make(kernel, folder.path()).unwrap();
        let made = folder.path().join("private-nodes");
        let patches = if made.is_dir() { list(&made).unwrap() } else { Vec::new() };
        patches.iter().map(|path| (stem(path), fs::read_to_string(path).unwrap())).collect()
    }

    /// A folder with patches for a kernel, as `git format-patch` writes them.
    fn exported(&self, patches: &[(&str, String)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for series in SERIES {
            fs::create_dir(folder.path().join(series)).unwrap();
        }
        for (name, text) in patches {
            fs::write(folder.path().join("private-nodes").join(format!("{name}.patch")), text).unwrap();
        }
        folder
    }

    fn split(&self, kernel: &str, patches: &[(&str, String)], leads: bool) -> Result<usize, String> {
        let folder = self.exported(patches);
        self.stored().split(kernel, folder.path(), leads).map_err(|error| error.to_string())
    }
}

#[test]
fn a_kernel_has_what_is_shared_with_its_own_changes_and_only_the_patches_that_change_something_in_it() {
    let fixture = Fixture::new();
    assert_eq!(fixture.stored().kernels().unwrap(), ["7.3", "6.12"]);
    let newer = fixture.make("7.3");
    assert_eq!(newer.len(), 1);
    assert_eq!(newer[0], ("0001-do".to_owned(), format!("{MESSAGE}---\n\n{}{NEW}", hook("newer"))));
    let older = fixture.make("6.12");
    assert_eq!(older.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["0001-do", "0002-fix"]);
    assert!(older[0].1.contains("-older\n") && older[0].1.contains("+new\n"), "{older:?}");
}

#[test]
fn what_is_made_is_what_git_wrote() {
    let fixture = Fixture::new();
    let patches = [("0001-do", patch(&[&hook("newest"), NEW]))];
    assert_eq!(fixture.split("7.4", &patches, false), Ok(1));
    assert_eq!(fixture.read("7.4/private-nodes/0001-do.diff"), hook("newest"));
    let made = Mail::parse(&fixture.make("7.4")[0].1).unwrap();
    assert_eq!(made.sections, Mail::parse(&patches[0].1).unwrap().sections);
    assert_eq!(fixture.make("6.12").len(), 2);
}

#[test]
fn a_kernel_whose_shared_part_differs_is_refused_and_nothing_is_written() {
    let fixture = Fixture::new();
    let other = NEW.replace("+new", "+other");
    let error = fixture.split("7.3", &[("0001-do", patch(&[&hook("x"), &other]))], false).unwrap_err();
    assert!(error.contains("(private-nodes/0001-do: mm/new.c); make it alike, or give --leads"), "{error}");
    let error = fixture.split("7.3", &[("0001-do", patch(&[NEW]).replace("Why", "How"))], false).unwrap_err();
    assert!(error.contains("(private-nodes/0001-do: the message)"), "{error}");
    let error = fixture.split("7.3", &[], false).unwrap_err();
    assert!(error.contains("(private-nodes/0001-do: it is missing)"), "{error}");
    assert_eq!(fixture.read("7.3/private-nodes/0001-do.diff"), hook("newer"));
}

#[test]
fn the_kernel_that_leads_replaces_what_is_shared() {
    let fixture = Fixture::new();
    let other = NEW.replace("+new", "+other");
    assert_eq!(fixture.split("7.3", &[("0001-do", patch(&[&hook("x"), &other]))], true), Ok(1));
    assert!(fixture.make("6.12")[0].1.contains("+other\n"));
    // A patch that it does not have stays, for one that has.
    assert_eq!(fixture.make("6.12").len(), 2);
    // Without the file, the patch has no more than a part for each.
    assert_eq!(fixture.split("7.3", &[], true), Ok(0));
    assert_eq!(fixture.make("7.3"), []);
    assert!(!fixture.make("6.12")[0].1.contains("mm/new.c"));
}

#[test]
fn an_older_release_gets_its_refresh() {
    let fixture = Fixture::new();
    for (release, line) in [("up-to-6.12.9", "oldest"), ("up-to-6.12.107", "old")] {
        fixture.write(&format!("6.12/refreshed/{release}/private-nodes/0001-do.diff"), &hook(line));
    }
    for (release, line) in
        [("6.12", "older"), ("6.12.118", "older"), ("6.12.107", "old"), ("6.12.10", "old"), ("6.12.9", "oldest")]
    {
        assert!(fixture.make(release)[0].1.contains(&format!("-{line}\n")), "{release}");
    }
    // Applying tries them in this order.
    let series = fixture.stored().series("6.12").unwrap();
    let texts = &series.patches[0].texts;
    let lines = texts.iter().map(|text| String::from_utf8_lossy(&text.content).into_owned());
    let order: Vec<_> =
        lines.map(|text| text.lines().find(|line| line.starts_with("-o")).unwrap().to_owned()).collect();
    assert_eq!(order, ["-older", "-old", "-oldest"]);
}

#[test]
fn a_part_without_its_patch_is_an_error() {
    let fixture = Fixture::new();
    fixture.write("7.3/private-nodes/0009-lost.diff", &hook("x"));
    let error = fixture.stored().series("7.3").unwrap_err().to_string();
    assert!(
        error.contains("0009-lost.patch is missing") && error.contains("0009-lost.diff is a part of it"),
        "{error}"
    );
    fixture.write("6.12/refreshed/up-to-6.12.9/private-nodes/0003-x.diff", &hook("x"));
    let error = fixture.stored().series("6.12").unwrap_err().to_string();
    assert!(error.contains("6.12/private-nodes/0003-x.diff is missing"), "{error}");
}

#[test]
fn making_a_series_asks_for_an_empty_folder_and_a_kernel_that_it_is_for() {
    let fixture = Fixture::new();
    let error = fixture.stored().make("7.3", &fixture.stored().root).unwrap_err().to_string();
    assert!(error.contains("it is not empty"), "{error}");
    let error = fixture.stored().make("6.1", Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(error.contains("there is none for 6.1; there are series for 7.3 and 6.12"), "{error}");
    assert!(fixture.split("../x", &[], true).unwrap_err().contains("is no kernel that a series can be for"));
}

#[test]
fn this_projects_series_are_one_for_every_kernel() {
    let stored = Stored::own().unwrap();
    assert_eq!(stored.kernels().unwrap(), ["7.3", "6.12"]);
    for kernel in ["7.3", "6.12"] {
        assert!(stored.series(kernel).unwrap().patches.len() > 35, "{kernel}");
    }
    assert!(stored.series("6.1").unwrap().is_empty());
    // What a patch creates is in its shared part, and there is nothing else.
    for name in stored.names().unwrap() {
        for kernel in stored.kernels().unwrap() {
            let own = stored.own_part(&kernel, &name);
            let own = if own.is_file() { read(&own).unwrap().sections } else { Vec::new() };
            assert!(!own.iter().any(super::super::mail::Section::creates), "{kernel} {name:?}");
        }
    }
}
