//! The tests of an installed collection.
//!
//! A test is a line of kselftest's own list, with one exception. `mm` has a single script there, `run_vmtests.sh`, which plays
//! everything for half an hour. It is split by its categories: each plays the script's own lines, with their arguments and
//! the huge pages that the script sets up for them, and none of that is repeated here. What the script's
//! programs are called is known as well, so that one can be played alone, by its name.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::script::quote;
use crate::provision::cache::files_below;
use crate::provision::error::{IoContext, ProvisionError};

/// kselftest's limit for a test whose collection sets none.
const LIMIT: Duration = Duration::from_secs(45);
/// Stands for "no limit", which kselftest writes as 0.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// The script that plays all of `mm`.
const SCRIPT: &str = "run_vmtests.sh";
/// Programs that do little or nothing without arguments, with those that suit a guest of a few hundred MiB.
const ARGUMENTS: [(&str, &str); 5] = [
    ("gup_test", "-u"),
    ("khugepaged", "all:anon"),
    ("ksm_tests", "-M -p 10"),
    ("transhuge-stress", "-d 5"),
    ("uffd-stress", "anon 20 4"),
];

/// The selftests of one folder of `tools/testing/selftests`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Its name.
    pub name: String,
    /// The tests that are played when the collection is named, in order.
    pub tests: Vec<Selftest>,
    /// Further programs, which are played only by name.
    pub by_name: Vec<Selftest>,
    /// What was not built.
    pub unbuilt: Vec<Unbuilt>,
}

/// A selftest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selftest {
    /// Its name in the collection.
    pub name: String,
    /// The shell line that plays it, in the collection's folder.
    pub line: String,
    /// How long it may take.
    pub limit: Duration,
}

/// A program that does not build here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbuilt {
    /// The program.
    pub name: String,
    /// What the compiler said.
    pub why: String,
}

impl Collection {
    /// The test of this name, with these further arguments if there are any.
    pub fn find(&self, name: &str, arguments: &str) -> Option<Selftest> {
        let named = |test: &&Selftest| test.name == name;
        if arguments.is_empty() {
            return self.tests.iter().chain(&self.by_name).find(named).cloned();
        }
        // A category takes none, but a program may have the same name.
        let test = self.by_name.iter().chain(&self.tests).find(named)?;
        // Arguments replace those that we would give.
        let program = test.line.split(' ').next().unwrap_or_default();
        let (name, line) = (format!("{name} {arguments}"), format!("{program} {arguments}"));
        Some(Selftest { name, line, limit: test.limit })
    }
}

/// The tests of the collection installed in `folder`, by the list of make and the files that it should have built.
pub(super) fn collection(
    name: &str,
    folder: &Path,
    listed: &str,
    programs: &[PathBuf],
    why: &dyn Fn(&Path) -> String,
) -> Result<Collection, ProvisionError> {
    let file_name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unbuilt = programs.iter().filter(|program| !folder.join(file_name(program)).exists());
    let unbuilt: Vec<Unbuilt> =
        unbuilt.map(|program| Unbuilt { name: file_name(program), why: why(program) }).collect();
    let limit = limit(&fs::read_to_string(folder.join("settings")).unwrap_or_default());
    let test = |name: &str, line: String| Selftest { name: name.to_owned(), line, limit };
    let (mut tests, mut by_name) = (Vec::new(), Vec::new());
    let is_unbuilt = |name: &str| unbuilt.iter().any(|unbuilt| unbuilt.name == name);
    for listed in listed.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')) {
        let categories = match listed {
            SCRIPT => categories(&fs::read_to_string(folder.join(SCRIPT)).unwrap_or_default()),
            _ => Vec::new(),
        };
        if !categories.is_empty() {
            let line = |category: &str| format!("./{SCRIPT} -t {}", quote(category));
            tests.extend(categories.iter().map(|category| test(category, line(category))));
        } else if !is_unbuilt(listed) {
            tests.push(test(listed, line(&folder.join(listed))?));
        }
    }
    let whole = tests.iter().filter(|test| !test.line.contains(SCRIPT));
    let known: BTreeSet<String> = whole.map(|test| test.name.clone()).collect();
    if folder.is_dir() {
        for path in files_below(folder)?.into_iter().filter(|path| path.parent() == Some(folder)) {
            let name = file_name(&path);
            let executable = fs::metadata(&path).context("examine", &path)?.permissions().mode() & 0o100 != 0;
            if !executable || known.contains(&name) {
                continue;
            }
            let arguments = ARGUMENTS.iter().find(|(program, _)| *program == name).map(|(_, arguments)| *arguments);
            let line = [&line(&path)?, arguments.unwrap_or_default()].join(" ");
            by_name.push(test(&name, line.trim_end().to_owned()));
        }
    }
    Ok(Collection { name: name.to_owned(), tests, by_name, unbuilt })
}

/// The shell line that starts a test's file: a script that may not be executed is given to its interpreter, as kselftest does.
fn line(path: &Path) -> Result<String, ProvisionError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let started = quote(format!("./{name}"));
    let executable = fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o100 != 0);
    if executable || !path.is_file() {
        return Ok(started);
    }
    let text = fs::read(path).context("read", path)?;
    let first = String::from_utf8_lossy(text.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned();
    Ok(first.strip_prefix("#!").map_or(started.clone(), |interpreter| format!("{} {started}", interpreter.trim())))
}

/// The limit in a collection's `settings`.
fn limit(settings: &str) -> Duration {
    let set = settings.lines().filter_map(|line| line.trim().strip_prefix("timeout=")).next_back();
    match set.and_then(|seconds| seconds.trim().parse().ok()) {
        None => LIMIT,
        Some(0) => LONGEST,
        Some(seconds) => Duration::from_secs(seconds).min(LONGEST),
    }
}

/// The categories in the script's lines `CATEGORY="NAME" run_test ...`, in order.
fn categories(script: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (_, rest) in script.lines().filter_map(|line| line.split_once("CATEGORY=\"")) {
        if let Some((name, rest)) = rest.split_once('"')
            && rest.trim_start().starts_with("run_test")
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMTESTS: &str = "#!/bin/bash\nrun_test() {\n\tif test_selected ${CATEGORY}; then :; fi\n}\n\
        CATEGORY=\"hugetlb\" run_test ./map_hugetlb\nif x; then\n\tCATEGORY=\"cow\" run_test ./cow\nfi\n\
        CATEGORY=\"hugetlb\" run_test ./thuge-gen\n";

    fn put(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn names(tests: &[Selftest]) -> Vec<&str> {
        tests.iter().map(|test| test.name.as_str()).collect()
    }

    #[test]
    fn mm_is_split_by_the_categories_of_its_script_and_its_programs_play_by_name() {
        let folder = tempfile::tempdir().unwrap();
        put(&folder.path().join(SCRIPT), VMTESTS, 0o755);
        put(&folder.path().join("settings"), "timeout=180\n", 0o644);
        for program in ["cow", "khugepaged", "map_hugetlb"] {
            put(&folder.path().join(program), "", 0o755);
        }
        let programs = ["cow", "khugepaged", "migration"].map(|name| Path::new("/objects").join(name));
        let why = |_: &Path| "no numa.h".to_owned();
        let mm = collection("mm", folder.path(), "mm:run_vmtests.sh\nmm2:x\n", &programs, &why).unwrap();
        assert_eq!(names(&mm.tests), ["hugetlb", "cow"]);
        assert_eq!(mm.tests[1].line, "./run_vmtests.sh -t cow");
        assert_eq!(mm.tests[1].limit, Duration::from_secs(180));
        assert_eq!(names(&mm.by_name), ["cow", "khugepaged", "map_hugetlb", "run_vmtests.sh"]);
        assert_eq!(mm.find("khugepaged", "").unwrap().line, "./khugepaged all:anon");
        assert_eq!(mm.find("khugepaged", "-s 2").unwrap().line, "./khugepaged -s 2");
        assert_eq!(mm.find("cow", "").unwrap().line, "./run_vmtests.sh -t cow");
        assert_eq!(mm.find("cow", "-x").unwrap().line, "./cow -x");
        assert_eq!(mm.find("nothing", ""), None);
        assert_eq!(mm.unbuilt, [Unbuilt { name: "migration".into(), why: "no numa.h".into() }]);
    }

    #[test]
    fn other_collections_have_the_tests_of_the_list_that_were_built() {
        let folder = tempfile::tempdir().unwrap();
        put(&folder.path().join("test_core"), "", 0o755);
        put(&folder.path().join("sysfs.py"), "#!/usr/bin/env python3\n", 0o644);
        let programs = ["test_core", "test_cpu"].map(|name| Path::new("/objects").join(name));
        let listed = "cgroup:test_core\ncgroup:test_cpu\ncgroup:sysfs.py\nother:x\n";
        let cgroup = collection("cgroup", folder.path(), listed, &programs, &|_| "x".to_owned()).unwrap();
        assert_eq!(names(&cgroup.tests), ["test_core", "sysfs.py"]);
        assert_eq!(cgroup.tests[1].line, "/usr/bin/env python3 ./sysfs.py");
        assert_eq!(cgroup.tests[0].limit, LIMIT);
        assert_eq!(cgroup.unbuilt.len(), 1);
    }

    #[test]
    fn the_limit_of_a_collection_is_in_its_settings() {
        assert_eq!(limit("# timeout=3\ntimeout=900\n"), Duration::from_secs(900));
        assert_eq!(limit("timeout=0\n"), LONGEST);
        assert_eq!(limit("timeout=soon\n"), LIMIT);
        assert_eq!(limit("timeout=99999999999\n"), LONGEST);
    }
}
