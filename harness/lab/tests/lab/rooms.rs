//! Which room of a crate uses which: only those that its `lib.rs` lists before it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms in the order in which the documentation of `lib.rs` lists them.
fn rooms(source: &Path) -> Vec<String> {
    let text = fs::read_to_string(source.join("lib.rs")).unwrap();
    let listed = text.lines().filter_map(|line| line.strip_prefix("//! - [`")?.split_once("`]:"));
    listed.map(|(name, _)| name.trim_start_matches("mod@").to_owned()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The rooms that a file names as `crate::ROOM`, in code and not in documentation. A braced list may name several.
fn used(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut used = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        if code[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[place + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => used.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut first = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => first = true,
                        c if first && c.is_alphabetic() => {
                            used.push(word(&list[at..]));
                            first = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    used
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What a crate does that its order of rooms forbids.
fn wrong(source: &Path) -> Vec<String> {
    let rooms = rooms(source);
    let floor = |name: &str| rooms.iter().position(|room| room == name);
    let mut wrong = Vec::new();
    for path in files(source) {
        let inside = path.strip_prefix(source).unwrap();
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if room == "lib" || room == "main" {
            continue;
        }
        let Some(own) = floor(&room) else {
            wrong.push(format!("{} is in no room that lib.rs lists", inside.display()));
            continue;
        };
        for name in used(&fs::read_to_string(&path).unwrap()) {
            match floor(&name) {
                Some(other) if other <= own => {}
                Some(_) => wrong.push(format!("{} uses {name}, which lib.rs lists after {room}", inside.display())),
                None => wrong.push(format!("{} uses crate::{name}, which is no room", inside.display())),
            }
        }
    }
    wrong
}

fn holds(source: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source).canonicalize().unwrap();
    assert!(rooms(&source).len() > 5, "lib.rs lists its rooms as \"- [`room`]: what it is\"");
    let wrong = wrong(&source);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_room_of_the_lab_uses_only_rooms_listed_before_it() {
    holds("src");
}

#[test]
fn each_room_of_the_device_uses_only_rooms_listed_before_it() {
    holds("../../device/src");
}

#[test]
fn a_room_that_looks_up_is_found() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lib.rs"), "//! - [`low`]: below.\n//! - [`high`]: above.\n").unwrap();
    fs::write(folder.path().join("low.rs"), "use crate::{low::X, high::{Y, Z}};\n// crate::gone\n").unwrap();
    fs::create_dir(folder.path().join("high")).unwrap();
    fs::write(folder.path().join("high/mod.rs"), "fn f() { crate::low::g(); }\n").unwrap();
    assert_eq!(wrong(folder.path()), ["low.rs uses high, which lib.rs lists after low"]);
}
