//! `selftest`: builds the selftests of a kernel tree, plays them on a guest with the device, and reports.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use console::{Term, style};
use indicatif::MultiProgress;

use super::exit::{self, Ended};
use super::machine::MachineArgs;
use super::out::outln;
use super::report::ReportArgs;
use crate::lab::catalog::Catalog;
use crate::play::artifacts;
use crate::play::preflight::preflight;
use crate::play::selftest::{Part, STAGE, SelftestOptions, not_built, play_part};
use crate::process::interrupt::interrupted;
use crate::provision::{
    self, Collection, GuestPackage, Kselftests, Options, Progress, ProvisionArgs, Provisioned, kselftests, provision,
};
use crate::report::{self, Outcome, Record, Verdict};
use crate::rig::obstacle;

/// Packages that every collection gets: what its scripts call, and the libraries that programs of many are linked with.
const PACKAGES: [&str; 14] = [
    "bash",
    "coreutils",
    "e2fsprogs",
    "findutils",
    "grep",
    "kmod",
    "libcap2",
    "libmnl0",
    "libnuma1",
    "liburing2",
    "numactl",
    "procps",
    "sed",
    "util-linux",
];
/// Packages that some collections get besides.
const MORE_PACKAGES: [(&str, &[&str]); 2] = [("damon", &["python3"]), ("net", &["iproute2", "iputils-ping"])];
/// Headers and libraries to build with.
const LIBRARIES: [&str; 5] = ["libc6-dev", "libcap-dev", "libmnl-dev", "libnuma-dev", "liburing-dev"];
/// The factor by which tests' own limits are extended where the guest has no KVM.
const PATIENCE_UNDER_TCG: u32 = 4;

/// Build the selftests of a kernel tree, and play them on the guest with the device.
///
/// A collection is a folder of the tree's tools/testing/selftests: mm, cgroup, damon, dax, cxl or any other. Its tests see the
/// device as a node of movable memory; those of dax see /dev/dax0.0, and those of cxl a device without a region. mm has one
/// script for everything: it is split into its categories.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness selftest mm cgroup                        of the pinned kernel, with this project's patches
  cxl-cram-harness selftest --plain mm cgroup                and without them
  cxl-cram-harness selftest --kernel-tree ~/linux mm:cow mm:migration
  cxl-cram-harness selftest 'mm:ksm_tests -N -m 1'           a program of mm with arguments of your own
  cxl-cram-harness selftest --list                           the tree's collections
  cxl-cram-harness selftest --list mm                        the tests of one
  cxl-cram-harness selftest --prefer-device mm               tests take memory from the device first
  cxl-cram-harness selftest --kernel bzImage --modules m --tests-from ~/linux mm
  cxl-cram-harness selftest mm --report-json with.json; cxl-cram-harness selftest --plain mm --report-json without.json
  cxl-cram-harness report compare with=with.json without=without.json

Exit code: 0 when no test failed, 1 when one did, 2 when the command line asks for something impossible (such as a test that
the tree does not have), 125 when this machine could not run it, and 130 after Ctrl-C.")]
pub(super) struct SelftestArgs {
    /// Collections, or single tests: COLLECTION:TEST, with arguments if the word is quoted
    #[arg(value_name = "COLLECTION[:TEST]")]
    tests: Vec<String>,

    /// Print the tests without playing them; without a COLLECTION, the tree's collections
    #[arg(long)]
    list: bool,

    /// Skip tests whose name contains WORD; may be given more than once
    #[arg(long, value_name = "WORD")]
    skip: Vec<String>,

    /// Take the tests from this kernel tree instead of the guest kernel's own
    #[arg(long, value_name = "FOLDER")]
    tests_from: Option<PathBuf>,

    /// Kill a test after this many seconds [default: the collection's own limit, four times that without KVM]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Let tests take memory from the device's node first, as long as it has some
    #[arg(long)]
    prefer_device: bool,

    /// Stop after the first test that fails
    #[arg(long)]
    fail_fast: bool,

    /// Also build with these Debian packages of headers and libraries: NAME or NAME=VERSION, separated by commas
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    dev_packages: Vec<GuestPackage>,

    /// Keep output, consoles, device logs and QEMU command lines here [default: target/cxl-cram of the workspace]
    #[arg(long, value_name = "FOLDER")]
    artifacts: Option<PathBuf>,

    #[command(flatten)]
    report: ReportArgs,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    provision: ProvisionArgs,
}

/// A word of the command line.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    collection: String,
    /// A test and its arguments; without one, all of the collection.
    test: Option<(String, String)>,
}

impl Wanted {
    fn parse(word: &str) -> Result<Self> {
        let (collection, test) = word.split_once(':').map_or((word, None), |(name, test)| (name, Some(test)));
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        ensure!(collection.split('/').all(is_part), "{word} names no collection; give COLLECTION or COLLECTION:TEST");
        let test = test.map(|test| {
            let (name, arguments) = test.trim().split_once(' ').unwrap_or((test.trim(), ""));
            (name.to_owned(), arguments.trim().to_owned())
        });
        ensure!(test.as_ref().is_none_or(|(name, _)| !name.is_empty()), "{word} names no test; give {collection}:TEST");
        Ok(Self { collection: collection.to_owned(), test })
    }
}

/// Builds selftests, and lists or plays them.
pub(super) fn selftest(args: &SelftestArgs, catalog: &Catalog) -> Result<ExitCode> {
    let wanted =
        args.tests.iter().map(|word| Wanted::parse(word)).collect::<Result<Vec<_>>>().map_err(Ended::refused)?;
    if wanted.is_empty() && !args.list {
        return Err(Ended::refused(anyhow!("name a collection of selftests, such as mm; --list shows them")).into());
    }
    let mut options = SelftestOptions {
        overrides: args.machine.overrides(),
        artifacts: catalog.artifact_folder(),
        limit: args.limit.map(Duration::from_secs),
        patience: if args.machine.has_kvm() { 1 } else { PATIENCE_UNDER_TCG },
        prefer_device: args.prefer_device,
    };
    if let Some(folder) = &args.artifacts {
        options.artifacts = std::path::absolute(folder).context("cannot resolve the artifact folder")?;
    }
    let accel = if args.list { String::new() } else { check(args, &options)? };

    let mut provided = args.provision.options();
    let progress = Progress::stderr();
    let tree = match &args.tests_from {
        Some(tree) => tree.clone(),
        None => provision::kernel_source(&provided, &progress).map_err(Ended::cannot_test)?,
    };
    if wanted.is_empty() {
        kselftests::collections(&tree).map_err(Ended::refused)?.iter().for_each(|name| outln!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut names: Vec<String> = Vec::new();
    for Wanted { collection, .. } in &wanted {
        if !names.contains(collection) {
            names.push(collection.clone());
        }
    }
    kselftests::check(&tree, &names).map_err(Ended::refused)?;
    let mut libraries = packages(LIBRARIES.iter().copied())?;
    libraries.extend_from_slice(&args.dev_packages);
    let built =
        provision::build_selftests(&provided, &tree, &names, &libraries, &progress).map_err(Ended::cannot_test)?;
    let parts = chosen(&wanted, &built.collections, &args.skip).map_err(Ended::refused)?;
    if args.list {
        list(&built.collections, &parts);
        return Ok(ExitCode::SUCCESS);
    }
    let folders = parts.iter().map(|part| part.folder(1)).collect::<Vec<_>>();
    artifacts::prepare(&options.artifacts, folders.iter().map(String::as_str)).map_err(Ended::refused)?;

    let wishes = add_needs(&mut provided, &tree, &names)?;
    provided.ovmf = args.machine.wants_ovmf();
    let mut provisioned = provision(&provided, &progress).map_err(Ended::cannot_test)?;
    provisioned.overlays.push(built.root.clone());
    options.overrides.firmware = options.overrides.firmware.or_else(|| provisioned.ovmf.clone());
    let mut about = vec![format!("Linux {} on QEMU {}, {accel}", provisioned.kernel.version, provisioned.qemu.version)];
    about.push(format!("selftests {} of {}", names.join(", "), tree.display()));
    about.iter().for_each(|line| eprintln!("{line}"));
    super::machine::print_remedies(&provisioned);
    let notes = notes(&provisioned, &wishes)?;
    notes.iter().for_each(|note| eprintln!("{} {note}", style("note:").cyan().for_stderr()));
    play(
        args,
        &built,
        &parts,
        &provisioned,
        &options,
        Record { notes, ..Record::new(Vec::new(), Duration::ZERO, about) },
    )
}

/// Checks everything that can be checked before anything is fetched or built. Returns how the guest is executed.
fn check(args: &SelftestArgs, options: &SelftestOptions) -> Result<String> {
    args.report.formats().check().map_err(Ended::refused)?;
    let warnings = preflight(STAGE.devices, &STAGE.machine, &options.overrides).map_err(Ended::preflight)?;
    for warning in warnings {
        eprintln!("{} {warning}", style("warning:").yellow().bold().for_stderr());
    }
    let accel = args.machine.accel().map_err(Ended::CannotTest)?;
    match obstacle() {
        Some(obstacle) => Err(Ended::cannot_test(anyhow!("{obstacle}; run `doctor` for details")).into()),
        None => Ok(accel),
    }
}

/// Adds what the collections need to what the user wants. Returns the files with options that the kernel should have.
fn add_needs(provided: &mut Options, tree: &Path, names: &[String]) -> Result<Vec<PathBuf>> {
    provided.no_corpus = true;
    let more = MORE_PACKAGES.iter().filter(|(collection, _)| {
        names
            .iter()
            .any(|name| name == collection || name.strip_prefix(collection).is_some_and(|rest| rest.starts_with('/')))
    });
    let own: Vec<&str> = PACKAGES.iter().copied().chain(more.flat_map(|(_, names)| names.iter().copied())).collect();
    // The user may want another version of one.
    let own = own.into_iter().filter(|name| !provided.packages.iter().any(|package| package.name() == *name));
    let own = packages(own)?;
    provided.packages.extend(own);
    let mut wishes = Vec::new();
    for name in names {
        wishes.extend(kselftests::wishes(tree, name).map_err(Ended::cannot_test)?);
    }
    provided.kernel_wishes.clone_from(&wishes);
    Ok(wishes)
}

fn packages<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<GuestPackage>> {
    names.into_iter().map(|name| name.parse().map_err(|error: String| anyhow!(error))).collect()
}

/// What a reader of the results should know of the kernel.
fn notes(provisioned: &Provisioned, wishes: &[PathBuf]) -> Result<Vec<String>> {
    let Some(config) = &provisioned.kernel.config else {
        return Ok(vec!["the kernel's configuration is not known; tests of what it lacks skip or fail".to_owned()]);
    };
    let text = std::fs::read_to_string(config).with_context(|| format!("cannot read {}", config.display()))?;
    let unmet = kselftests::unmet(&text, wishes)?;
    Ok(if unmet.is_empty() {
        Vec::new()
    } else {
        vec![format!("this kernel does not have what the selftests' configuration wants: {}", unmet.join(", "))]
    })
}

/// The tests that the words name, by collection, each once.
fn chosen<'a>(wanted: &[Wanted], collections: &'a [Collection], skip: &[String]) -> Result<Vec<Part<'a>>> {
    let mut parts = Vec::new();
    for collection in collections {
        let (mut tests, mut known) = (Vec::new(), BTreeSet::new());
        for Wanted { test, .. } in wanted.iter().filter(|wanted| wanted.collection == collection.name) {
            let found = match test {
                None => collection.tests.clone(),
                Some((name, arguments)) => match collection.find(name, arguments) {
                    Some(test) => vec![test],
                    None => bail!("{}", unknown(collection, name)),
                },
            };
            tests.extend(found.into_iter().filter(|test| known.insert(test.name.clone())));
        }
        tests.retain(|test| !skip.iter().any(|word| test.name.contains(word.as_str())));
        parts.push(Part { collection: &collection.name, tests });
    }
    let unbuilt = collections.iter().all(|collection| !collection.unbuilt.is_empty());
    ensure!(unbuilt || parts.iter().any(|part| !part.tests.is_empty()), "no test is left to play");
    Ok(parts)
}

/// Why a collection has no such test.
fn unknown(collection: &Collection, name: &str) -> String {
    if let Some(unbuilt) = collection.unbuilt.iter().find(|unbuilt| unbuilt.name == name) {
        return format!("{}:{name} was not built: {}", collection.name, unbuilt.why);
    }
    let names: Vec<&str> = collection.tests.iter().chain(&collection.by_name).map(|test| test.name.as_str()).collect();
    let near = similar::get_close_matches(name, &names, 1, 0.7);
    let hint = near.first().map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
    format!("{} has no test {name}{hint}; `selftest --list {}` shows them", collection.name, collection.name)
}

/// Prints the tests, those that are played only by name, and those that were not built.
fn list(collections: &[Collection], parts: &[Part]) {
    for (collection, part) in collections.iter().zip(parts) {
        let name = &collection.name;
        part.tests.iter().for_each(|test| outln!("{name}:{:<28}  {}", test.name, test.line));
        for test in collection.by_name.iter().filter(|one| !collection.tests.iter().any(|test| test.name == one.name)) {
            outln!("{name}:{:<28}  {}, only by name", test.name, test.line);
        }
        collection.unbuilt.iter().for_each(|unbuilt| outln!("{name}:{:<28}  not built: {}", unbuilt.name, unbuilt.why));
    }
}

/// Plays everything, and writes the reports of `record`, which has no outcomes yet.
fn play(
    args: &SelftestArgs,
    built: &Kselftests,
    parts: &[Part],
    provisioned: &Provisioned,
    options: &SelftestOptions,
    mut record: Record,
) -> Result<ExitCode> {
    let formats = args.report.formats();
    let for_machines = [&formats.json, &formats.junit, &formats.ktap, &formats.html]
        .into_iter()
        .flatten()
        .any(|file| file.as_os_str() == "-");
    let print = |text: String| if for_machines { eprintln!("{text}") } else { outln!("{text}") };
    let stream = if for_machines { Term::stderr() } else { Term::stdout() };
    let (begun, progress) = (Instant::now(), MultiProgress::new());
    let mut outcomes: Vec<Outcome> = Vec::new();
    for (part, collection) in parts.iter().zip(&built.collections) {
        let asked = args.tests.contains(&collection.name);
        for unbuilt in collection.unbuilt.iter().filter(|_| asked) {
            outcomes.push(not_built(&collection.name, unbuilt, &provisioned.kernel.version));
            print(outcomes[outcomes.len() - 1].line(report::width(&stream)));
        }
        let stop = || args.fail_fast && outcomes.iter().any(Outcome::failed);
        if interrupted() || stop() {
            break;
        }
        outcomes.extend(play_part(part, provisioned, options, &progress, |outcome| {
            if outcome.verdict != Verdict::Interrupted {
                progress.suspend(|| print(outcome.line(report::width(&stream))));
            }
            if args.fail_fast && outcome.failed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }));
    }
    record = Record { notes: record.notes, ..Record::new(outcomes, begun.elapsed(), record.about) };
    let written = report::write(&record, &formats);
    print(report::summary(&record.scenarios, begun.elapsed()));
    exit::of_record(&record, written)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::provision::{Selftest, Unbuilt};

    fn mm() -> Collection {
        let test = |name: &str, line: &str| Selftest { name: name.into(), line: line.into(), limit: Duration::ZERO };
        Collection {
            name: "mm".into(),
            tests: vec![test("cow", "./run_vmtests.sh -t cow"), test("thp", "./run_vmtests.sh -t thp")],
            by_name: vec![test("ksm_tests", "./ksm_tests -M")],
            unbuilt: vec![Unbuilt { name: "hmm-tests".into(), why: "no header".into() }],
        }
    }

    fn names(words: &[&str], skip: &[&str]) -> Result<Vec<String>> {
        let wanted = words.iter().map(|word| Wanted::parse(word)).collect::<Result<Vec<_>>>()?;
        let skip: Vec<String> = skip.iter().map(|&word| word.to_owned()).collect();
        let collections = [mm()];
        let parts = chosen(&wanted, &collections, &skip)?;
        Ok(parts.iter().flat_map(|part| part.tests.iter().map(|test| test.name.clone())).collect())
    }

    #[test]
    fn a_collection_plays_its_tests_and_a_program_only_by_name() {
        assert_eq!(names(&["mm"], &[]).unwrap(), ["cow", "thp"]);
        assert_eq!(names(&["mm:thp", "mm:ksm_tests -N -m 1"], &[]).unwrap(), ["thp", "ksm_tests -N -m 1"]);
        assert_eq!(names(&["mm:thp", "mm"], &["cow"]).unwrap(), ["thp"]);
    }

    #[test]
    fn a_test_that_is_not_there_is_refused_with_the_reason() {
        let refused = |word: &str| names(&[word], &[]).unwrap_err().to_string();
        assert_eq!(refused("mm:hugetlb"), "mm has no test hugetlb; `selftest --list mm` shows them");
        assert!(refused("mm:ksm_test").contains("(did you mean ksm_tests?)"));
        assert_eq!(refused("mm:hmm-tests"), "mm:hmm-tests was not built: no header");
        for word in ["", ":cow", "mm:", "../mm", "mm//x", "/mm"] {
            assert!(refused(word).contains("give "), "{word}");
        }
    }
}
