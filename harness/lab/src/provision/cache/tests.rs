use super::*;

fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(folder.path())).unwrap();
    (folder, cache)
}

fn key() -> Key {
    Key::of(&[("recipe", b"1")])
}

fn refuse(path: &Path) -> Result<(), ProvisionError> {
    Err(ProvisionError::Missing { path: path.to_owned(), hint: "on purpose".into() })
}

fn write(path: &Path, text: &str) -> Result<(), ProvisionError> {
    fs::write(path, text).context("write", path)
}

#[test]
fn a_key_depends_on_the_boundaries_between_inputs() {
    assert_eq!(Key::of(&[("a", b"1"), ("b", b"2")]), Key::of(&[("a", b"1"), ("b", b"2")]));
    assert_ne!(Key::of(&[("a", b"12"), ("b", b"")]), Key::of(&[("a", b"1"), ("b", b"2")]));
    assert_ne!(Key::of(&[("ab", b"1")]), Key::of(&[("a", b"b1")]));
}

#[test]
fn a_finished_product_is_not_made_again() {
    let (_folder, cache) = cache();
    let made = cache.product(Product::Corpus, &key(), |folder| write(&folder.join("f"), "x"));
    let found = cache.product(Product::Corpus, &key(), |_| panic!("made twice")).unwrap();
    assert_eq!(made.unwrap(), found);
    assert_eq!(fs::read(found.join("f")).unwrap(), b"x");
}

#[test]
fn a_failed_build_leaves_no_product_and_the_next_starts_afresh() {
    let (_folder, cache) = cache();
    let failed = cache.product(Product::Corpus, &key(), |folder| {
        write(&folder.join("half"), "x")?;
        refuse(folder)
    });
    assert!(failed.is_err());
    assert_eq!(cache.finished(Product::Corpus, &key()), None);
    let made = cache.product(Product::Corpus, &key(), |_| Ok(())).unwrap();
    assert!(!made.join("half").exists());
}

#[test]
fn the_leftovers_of_a_killed_run_are_removed_by_the_next() {
    let (folder, cache) = cache();
    let leftover = folder.path().join(format!("{MAKING}corpus-{}.abc", key()));
    fs::create_dir(&leftover).unwrap();
    fs::write(leftover.join("half"), "x").unwrap();
    let made = cache.product(Product::Corpus, &key(), |_| Ok(())).unwrap();
    assert!(!leftover.exists());
    assert_eq!(list(&made).unwrap().len(), 0);
}

#[test]
fn two_runs_at_once_make_a_product_once() {
    let (_folder, cache) = cache();
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let make = |_: &Path| {
                    made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Ok(())
                };
                cache.product(Product::Corpus, &key(), make).unwrap();
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
}

#[test]
fn clean_removes_products_leftovers_and_locks_but_not_products_being_made() {
    let (_folder, cache) = cache();
    let key = key();
    cache.product(Product::Kernel, &key, |folder| write(&folder.join("f"), "four")).unwrap();
    cache.log("kernel").unwrap();
    fs::create_dir(cache.root().join(format!("{MAKING}qemu-{key}.abc"))).unwrap();
    cache
        .product(Product::Corpus, &key, |making| {
            let removed = cache.clean()?;
            assert_eq!(removed.len(), 3);
            assert_eq!(removed.iter().map(|entry| entry.bytes).sum::<u64>(), 4);
            assert!(making.is_dir() && cache.is_busy(Product::Corpus, &key));
            Ok(())
        })
        .unwrap();
    assert_eq!(cache.entries().unwrap().len(), 1);
    cache.clean().unwrap();
    let left: Vec<String> = list(cache.root()).unwrap().iter().map(|path| file_name(path)).collect();
    assert!(left.iter().all(|name| marker::is_name(name)), "{left:?}");
}

#[test]
fn clean_keeps_foreign_entries_with_similar_names() {
    let (_folder, cache) = cache();
    let key = key();
    let near = [
        "kernel-0123456789a".to_owned(),
        "kernel-0123456789AB".into(),
        "kernels-0123456789ab".into(),
        format!("my-kernel-{key}"),
        format!("kernel-{key}.old"),
        format!("{MAKING}kernel-{key}"),
        format!("{MAKING}thing-{key}.abc"),
        "apt.bak".into(),
        "log".into(),
        "kernel-of-tree-x".into(),
        ".lock-mine".into(),
    ];
    for name in &near {
        fs::create_dir(cache.root().join(name)).unwrap();
    }
    fs::write(cache.root().join("thesis.txt"), "years").unwrap();
    assert_eq!(cache.clean().unwrap(), []);
    assert_eq!(cache.strangers().unwrap().len(), near.len() + 1);
    assert!(near.iter().all(|name| cache.root().join(name).is_dir()));
}

#[test]
fn a_product_that_is_a_link_is_removed_as_a_link() {
    let (_folder, cache) = cache();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("thesis.txt"), "years").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), cache.root().join(format!("kernel-{}", key()))).unwrap();
    assert_eq!(cache.clean().unwrap().len(), 1);
    assert!(elsewhere.path().join("thesis.txt").is_file());
    assert_eq!(cache.entries().unwrap(), []);
}

#[test]
fn an_unmarked_folder_that_is_not_empty_is_not_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["logs", "apt", &format!("kernel-{}", key()), "thesis.txt"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let opened = Cache::open(Some(folder.path()));
    assert!(matches!(opened, Err(ProvisionError::ForeignFolder { .. })), "{opened:?}");
    let existing = Cache::existing(Some(folder.path()));
    assert!(matches!(existing, Err(ProvisionError::NoCache { .. })), "{existing:?}");
    assert_eq!(list(folder.path()).unwrap().len(), 4);
}

#[test]
fn looking_into_a_missing_cache_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(Some(&folder.path().join("cache"))).unwrap();
    assert_eq!(cache.finished(Product::Kernel, &key()), None);
    assert_eq!(list(folder.path()).unwrap(), Vec::<PathBuf>::new());
    assert!(matches!(Cache::existing(Some(cache.root())), Err(ProvisionError::Missing { .. })));
}

#[test]
fn a_removed_lock_file_protects_nothing() {
    let (_folder, cache) = cache();
    let first = cache.lock("apt", Duration::ZERO).unwrap();
    fs::remove_file(cache.root().join(".lock-apt")).unwrap();
    let second = cache.lock("apt", Duration::ZERO).unwrap();
    drop(first);
    assert!(matches!(cache.lock("apt", Duration::ZERO), Err(ProvisionError::Locked { .. })));
    drop(second);
    cache.lock("apt", Duration::ZERO).unwrap();
}
