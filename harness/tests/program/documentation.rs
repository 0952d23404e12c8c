//! Checks that the programs accept the commands in the README, the pages of `docs/` and the workflow.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The words that call a program, and its command line.
type Call = (&'static [&'static str], fn() -> clap::Command);

/// The programs, by the words that call them in the documentation.
const CALLS: [Call; 6] = [
    (&["cargo", "run", "--release", "-p", "cxl-cram-device", "--"], cxl_cram_device::cli::command),
    (&["cargo", "run", "--release", "--"], harness_command),
    (&["cxl-cram-device"], cxl_cram_device::cli::command),
    (&["cxl-cram-harness"], harness_command),
    (&["target/release/cxl-cram-device"], cxl_cram_device::cli::command),
    (&["target/release/cxl-cram-harness"], harness_command),
];

fn harness_command() -> clap::Command {
    cxl_cram_lab::cli::command(&cxl_cram_scenarios::CATALOG)
}

/// Values for the variables of continuous integration.
const VARIABLES: [(&str, &str); 6] = [
    ("${{ matrix.distribution }}", "debian"),
    ("${{ matrix.kernel }}", "newest"),
    ("${{ matrix.part }}", "1"),
    ("$KERNEL", "newest"),
    ("$PART", "1/3"),
    ("$CI_JOB_ID", "1"),
];

/// The workflow, which counts as one fenced block.
const WORKFLOW: &str = ".github/workflows/ci.yml";

/// A command in the documentation: its page, and the arguments of the program.
struct DocumentedCommand {
    page: String,
    arguments: Vec<String>,
    program: clap::Command,
}

/// The lines of the fenced blocks. A line that ends in a backslash, or is followed by options, is joined with the next.
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
fn commands(page: &str, line: &str) -> Vec<DocumentedCommand> {
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
            found.push(DocumentedCommand { page: page.to_owned(), arguments: arguments[..end].to_vec(), program });
        }
    }
    found
}

fn documentation() -> Vec<DocumentedCommand> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let pages = fs::read_dir(workspace.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut found = Vec::new();
    for path in pages.chain([workspace.join("README.md"), workspace.join("CONTRIBUTING.md"), workspace.join(WORKFLOW)])
    {
        let page = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut text = fs::read_to_string(&path).unwrap();
        if path.ends_with(WORKFLOW) {
            text = format!("```\n{text}```\n");
        }
        found.extend(lines(&text).iter().flat_map(|line| commands(&page, line)));
    }
    found
}

#[test]
fn the_programs_accept_every_command_in_the_documentation() {
    let mut wrong = String::new();
    let mut count = 0;
    for DocumentedCommand { page, arguments, program } in documentation() {
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

#[test]
fn the_scenario_in_the_documentation_matches_the_example_crate() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(workspace.join("docs/scenarios.md")).unwrap();
    let (_, block) = page.split_once("   ```rust\n").unwrap();
    let (block, _) = block.split_once("   ```\n").unwrap();
    let shown: String = block.lines().map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line))).collect();
    assert_eq!(shown, fs::read_to_string(workspace.join("guest-tests/example/src/zeros.rs")).unwrap());
}

/// The pages, by their path in the workspace.
fn pages(workspace: &Path) -> Vec<PathBuf> {
    let names = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| workspace.join(name));
    let docs = fs::read_dir(workspace.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    names.into_iter().chain(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"))).collect()
}

/// The targets of the links in a page: what is in parentheses after a bracket.
fn links(page: &str) -> Vec<&str> {
    page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The anchors that GitHub gives the headings of a page.
fn anchors(page: &str) -> Vec<String> {
    let anchor = |heading: &str| -> String {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn every_link_in_the_documentation_leads_to_a_file_and_a_heading_in_it() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut broken = Vec::new();
    for path in pages(workspace) {
        let page = fs::read_to_string(&path).unwrap();
        for link in links(&page).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let leads = match fs::read_to_string(&target) {
                _ if anchor.is_empty() => target.exists(),
                Ok(there) => anchors(&there).iter().any(|there| there == anchor),
                Err(_) => false,
            };
            if !leads {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
