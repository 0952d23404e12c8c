//! What the README and the pages of `docs/` tell people to type is what the programs take.

use std::{fs, path::Path};

/// The words that call a program, and what it takes.
type Call = (&'static [&'static str], fn() -> clap::Command);

/// The programs, by what calls them in the documentation.
const CALLS: [Call; 6] = [
    (&["cargo", "run", "--release", "-p", "cxl-cram-device", "--"], cxl_cram_device::cli::command),
    (&["cargo", "run", "--release", "--"], cxl_cram_harness::cli::command),
    (&["cxl-cram-device"], cxl_cram_device::cli::command),
    (&["cxl-cram-harness"], cxl_cram_harness::cli::command),
    (&["target/release/cxl-cram-device"], cxl_cram_device::cli::command),
    (&["target/release/cxl-cram-harness"], cxl_cram_harness::cli::command),
];

/// What continuous integration puts in.
const VARIABLES: [(&str, &str); 5] = [
    ("${{ matrix.kernel }}", "newest"),
    ("${{ matrix.part }}", "1"),
    ("$KERNEL", "newest"),
    ("$PART", "1/3"),
    ("$CI_JOB_ID", "1"),
];

/// A command of the documentation: where it stands, and the arguments of the program.
struct Told {
    page: String,
    arguments: Vec<String>,
    program: clap::Command,
}

/// The lines of the fenced blocks; one that ends in a backslash, or that an option continues, is one with the next.
fn lines(page: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let (mut fenced, mut open) = (false, false);
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            (fenced, open) = (!fenced, false);
            continue;
        }
        if !fenced {
            continue;
        }
        let text = line.trim().trim_start_matches("- run:").trim_start_matches("- ").trim();
        let (text, goes_on) = text.strip_suffix('\\').map_or((text, false), |text| (text, true));
        match lines.last_mut() {
            Some(last) if open || text.starts_with("--") => *last = format!("{last} {text}"),
            _ => lines.push(text.to_owned()),
        }
        open = goes_on;
    }
    lines
}

/// The commands of both programs in a line of shell.
fn told(page: &str, line: &str) -> Vec<Told> {
    let line = VARIABLES.iter().fold(line.to_owned(), |line, (name, value)| line.replace(name, value));
    let Some(words) = shlex::split(&line) else { return Vec::new() };
    let mut found = Vec::new();
    for part in words.split(|word| ["|", "&&", ";", "&"].contains(&word.as_str())) {
        let called = CALLS.iter().find_map(|(call, program)| {
            let at = part.windows(call.len()).position(|words| words == *call)?;
            // After -p it is the package of an example or a test.
            part[..at].last().is_none_or(|word| word != "-p").then_some(())?;
            Some((&part[at + call.len()..], program()))
        });
        if let Some((arguments, program)) = called {
            let end = arguments.iter().position(|word| word.starts_with(['<', '>'])).unwrap_or(arguments.len());
            found.push(Told { page: page.to_owned(), arguments: arguments[..end].to_vec(), program });
        }
    }
    found
}

fn documentation() -> Vec<Told> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let pages = fs::read_dir(workspace.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages
        .chain([workspace.join("README.md")])
        .flat_map(|path| {
            let page = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            lines(&text).iter().flat_map(|line| told(&page, line)).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_command_in_the_documentation_is_one_that_the_program_takes() {
    let mut wrong = String::new();
    let mut count = 0;
    for Told { page, arguments, program } in documentation() {
        // A bare name stands for the program itself.
        let asked = arguments.iter().any(|word| ["--help", "--version", "..."].contains(&word.as_str()));
        if arguments.is_empty() || asked {
            continue;
        }
        count += 1;
        let line = [vec![program.get_name().to_owned()], arguments].concat();
        if let Err(error) = program.try_get_matches_from(&line) {
            let reason = error.to_string();
            wrong += &format!("{page}: {}: {}\n", line.join(" "), reason.lines().next().unwrap_or_default());
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count > 50, "only {count} commands were found: are the pages read?");
}
