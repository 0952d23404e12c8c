use super::*;

/// A tree with one collection, whose Makefile does what kselftest's does.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("Makefile", "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n");
    put("mm/gup_test.h", "");
    put("tools/include/x.h", "");
    put("tools/testing/selftests/Makefile", "TARGETS += alsa\nTARGETS += mm\nTARGETS += net/lib gone\n");
    for collection in ["alsa", "mm", "net/lib", "cram"] {
        put(&format!("tools/testing/selftests/{collection}/Makefile"), "");
    }
    tree
}

#[test]
fn a_collection_is_a_folder_with_a_makefile_listed_or_not() {
    let tree = tree();
    assert_eq!(collections(tree.path()).unwrap(), ["alsa", "cram", "mm", "net/lib"]);
    let error = check(tree.path(), &["mm".into(), "crma".into()]).unwrap_err().to_string();
    assert!(error.contains("no selftests crma") && error.ends_with("it has cram"), "{error}");
    let error = check(tree.path(), &["dax".into()]).unwrap_err().to_string();
    assert!(error.ends_with("it has alsa, cram, mm, net/lib"), "{error}");
}

#[test]
fn the_copy_follows_the_tree_and_nothing_is_written_back() {
    let (tree, folder) = (tree(), tempfile::tempdir().unwrap());
    let tests = tree.path().join(FOLDER);
    for (name, text) in [("mm/cow.c", "one"), ("mm/local_config.h", "theirs"), ("mm/cow", "\x7fELF...")] {
        fs::write(tests.join(name), text).unwrap();
    }
    let view = folder.path().join("view");
    copied(tree.path(), &view).unwrap();
    let copy = view.join(FOLDER).join("mm");
    assert_eq!(fs::read_to_string(copy.join("cow.c")).unwrap(), "one");
    assert!(!copy.join("cow").exists() && !copy.join("local_config.h").exists());
    assert!(copy.join("../../../../mm/gup_test.h").exists() && copy.join("../../../include/x.h").exists());
    fs::write(copy.join("local_config.h"), "ours").unwrap();
    fs::write(tests.join("mm/cow.c"), "three").unwrap();
    copied(tree.path(), &view).unwrap();
    assert_eq!(fs::read_to_string(copy.join("cow.c")).unwrap(), "three");
    assert_eq!(fs::read_to_string(tests.join("mm/local_config.h")).unwrap(), "theirs");
}

#[test]
fn the_reason_why_a_program_was_not_built_is_the_compilers() {
    let line = "make[1]: [Makefile:203: /c/objects/kselftest/mm/migration] Error 1 (ignored)";
    assert_eq!(failed_target(line), Some("/c/objects/kselftest/mm/migration"));
    assert_eq!(failed_target("make[1]: Nothing to be done for 'all'."), None);
    assert!(is_error("migration.c:11:10: fatal error: numa.h: No such file or directory"));
    assert!(!is_error("migration.c:11:10: warning: unused"));
}

#[test]
fn options_that_do_not_hold_are_named_and_a_module_may_be_built_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    fs::write(&file, "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=m\nCONFIG_D=m\n").unwrap();
    assert_eq!(unmet("CONFIG_A=y\nCONFIG_C=y\n", &[file]).unwrap(), ["CONFIG_B=y", "CONFIG_D=m"]);
}
