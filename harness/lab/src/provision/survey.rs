//! Surveys what a run needs: what is present, and what a run would fetch or build. Makes nothing.

use super::archive::Purpose;
use super::host_tools::Work;
use super::pinned::Set;
use super::pins;
use super::pins::Pin;
use super::{
    Cache, Distribution, Maker, NEEDED_MIB, Options, Progress, ProvisionError, firmware, guest_tools, host_tools,
    kernel, qemu,
};

/// The state of one thing that a run needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Present: a description.
    Ready(String),
    /// Missing, but a run would fetch or make it: how.
    Later(String),
    /// Missing, and a run would fail: the error.
    Lacking(String),
}

/// Surveys everything that a run needs. Returns names and findings.
///
/// # Errors
/// There is no folder for the cache.
pub fn survey(options: &Options) -> Result<Vec<(&'static str, Finding)>, ProvisionError> {
    let progress = Progress::quiet();
    let maker = Maker::looking(options, &progress)?;
    let archive = maker.archive.configured(Purpose {
        what: "what is missing",
        instead: "provide it with --qemu, --kernel-tree and --guest-tools",
    });
    let work = match maker.builds_a_package() || options.kernel_tree.is_some() {
        true => [Work::Kernel, Work::Program],
        false => [Work::Modules, Work::Program],
    };
    let missing = host_tools::lacking(&work);
    let tools = match (missing.is_empty(), !options.offline && host_tools::can_install()) {
        (true, _) => Finding::Ready("all present".into()),
        (false, true) => Finding::Later(format!("{} will be installed", missing.join(" "))),
        (false, false) => Finding::Lacking(ProvisionError::MissingTools { packages: missing.join(" ") }.to_string()),
    };
    // A missing product reports what prevents making it.
    let fetched = |found: Result<String, ProvisionError>| match (found, &archive) {
        (Ok(what), _) => Finding::Ready(what),
        (Err(ProvisionError::Absent), _) if options.offline => {
            Finding::Lacking("not in the cache yet; run once without --offline".into())
        }
        (Err(ProvisionError::Absent), Err(why)) => Finding::Lacking(why.to_string()),
        (Err(ProvisionError::Absent), Ok(_)) => Finding::Later("fetched at the first run".into()),
        (Err(error), _) => Finding::Lacking(error.to_string()),
    };
    let built = |found: Result<String, ProvisionError>| match (found, &tools) {
        (Ok(what), _) => Finding::Ready(what),
        (Err(ProvisionError::Absent), Finding::Lacking(why)) => Finding::Lacking(why.clone()),
        (Err(ProvisionError::Absent), _) => Finding::Later("built at the first run".into()),
        (Err(error), _) => Finding::Lacking(error.to_string()),
    };
    let qemu = maker.qemu();
    let corpus = qemu.as_ref().map_err(|_| ProvisionError::Absent).and_then(|qemu| maker.corpus(qemu));
    let kernel = maker.kernel().map(|kernel| format!("Linux {}, {}", kernel.version, kernel.image.display()));
    let source = match &kernel {
        Err(_) if maker.builds_a_package() => {
            Some(fetched(maker.package_source().map(|source| source.tree.display().to_string())))
        }
        _ => None,
    };
    let shown = |path: std::path::PathBuf| path.display().to_string();
    let mut findings = vec![
        (
            "QEMU",
            fetched(qemu.map(|qemu| match qemu.root() {
                Some(_) => format!("{}, fetched; `cxl-cram-harness qemu -- ARGUMENTS` starts it", qemu.version),
                None => format!("{}, {}", qemu.version, qemu.program().display()),
            })),
        ),
        ("guest kernel", if options.kernel_distribution.is_some() { fetched(kernel) } else { built(kernel) }),
        ("guest program", built(maker.guest_program().map(shown))),
        ("guest tools", fetched(maker.guest_tools().map(shown))),
        ("corpus", built(corpus.map(shown))),
    ];
    findings.extend(source.map(|source| ("kernel source", source)));
    if !options.packages.is_empty() {
        let found = maker.packages(&options.packages).map(|root| root.map(shown).unwrap_or_default());
        findings.push(("guest packages", fetched(found)));
    }
    // If nothing has to be made, neither tools nor disk space are needed.
    let complete = findings.iter().all(|(_, finding)| matches!(finding, Finding::Ready(_)));
    findings.push(("build tools", if complete { unneeded(tools) } else { tools }));
    findings.push(("disk", disk_space(&maker, complete)));
    findings.push((
        "package archive",
        match archive {
            Ok(()) => Finding::Ready(match &options.apt_sources {
                Some(file) => format!("the lines of {}", file.display()),
                None => "a Debian mirror in apt's configuration".into(),
            }),
            Err(why) if complete => unneeded(Finding::Lacking(why.to_string())),
            Err(why) => Finding::Later(why.to_string()),
        },
    ));
    Ok(findings)
}

/// Turns a lacking thing into one that is not needed now, because everything is in the cache.
fn unneeded(finding: Finding) -> Finding {
    match finding {
        Finding::Lacking(why) => Finding::Later(format!("not needed now; {why}")),
        other => other,
    }
}

fn disk_space(maker: &Maker, complete: bool) -> Finding {
    let cache: &Cache = &maker.cache;
    match maker.free_mib() {
        Ok(free) => {
            let text = format!("{free} MiB free in {}", cache.root().display());
            if free >= NEEDED_MIB {
                Finding::Ready(text)
            } else if complete {
                Finding::Later(format!("{text}; a kernel build needs {NEEDED_MIB} MiB"))
            } else {
                Finding::Lacking(format!(
                    "{text}, but {NEEDED_MIB} MiB are needed; free some space or give another --cache-dir"
                ))
            }
        }
        Err(error) => Finding::Lacking(error.to_string()),
    }
}

/// The pinned, cached and newest versions of a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinState {
    /// The thing: "kernel source".
    pub what: &'static str,
    /// The package.
    pub package: String,
    /// The pinned version.
    pub pinned: String,
    /// Whether the pinned version is in the cache.
    pub cached: bool,
    /// The newest version in the archive; `None` if the archive was not queried or does not answer.
    pub newest: Option<String>,
}

/// Compares the pins with the cache and, unless offline, with the archive. The second value is the reason if there are no
/// newest versions.
///
/// The archive's lists are kept only if there is a cache.
///
/// # Errors
/// The pin file cannot be read. An archive that does not answer is not an error.
pub fn pin_states(options: &Options, progress: &Progress) -> Result<(Vec<PinState>, Option<String>), ProvisionError> {
    let maker = Maker::looking(options, progress)?;
    let pins = maker.pins()?;
    let source: Vec<&str> = pins.kernel().iter().map(|pin| pin.package.as_str()).collect();
    let mut sets: Vec<Set> = vec![kernel::source::set(&pins.kernel_source, &source, String::new())];
    sets.extend(Distribution::ALL.map(|distribution| kernel::distribution::set(distribution, pins)));
    sets.extend([qemu::set(&pins.qemu), firmware::set(&pins.ovmf), guest_tools::set(&pins.guest_tools)]);
    sets.retain(|set| !set.pins.is_empty());
    let leads: Vec<&Pin> = sets.iter().filter_map(|set| set.pins.first()).collect();
    let roots: Vec<&str> = sets.iter().filter_map(|set| set.roots.first().copied()).collect();
    let (newest, why) = match newest(options, &roots, progress) {
        Ok(newest) => (newest, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let states = sets.iter().zip(&leads).map(|(set, lead)| PinState {
        what: set.step.1,
        package: lead.package.clone(),
        pinned: lead.version.clone(),
        cached: maker.cache.finished(set.product, &pins::key(set.recipe, set.pins)).is_some(),
        newest: newest
            .iter()
            .find(|offer| set.roots.first() == Some(&offer.package.as_str()) && (set.candidates)(offer))
            .map(|offer| offer.version.clone()),
    });
    Ok((states.collect(), why))
}

/// The versions of these packages in the archive, the newest of each package first.
fn newest(options: &Options, names: &[&str], progress: &Progress) -> Result<Vec<Pin>, ProvisionError> {
    if options.offline {
        return Err(ProvisionError::OfflineQuestion);
    }
    // Without a cache, the lists go to a temporary folder.
    let temporary = tempfile::tempdir().ok();
    let there = Cache::existing(options.cache_dir.as_deref()).is_ok();
    let cache_dir = match &temporary {
        Some(temporary) if !there => Some(temporary.path().to_owned()),
        _ => options.cache_dir.clone(),
    };
    let options = Options { cache_dir, ..options.clone() };
    let maker = Maker::new(&options, progress)?;
    let mut step = progress.step(1, 1, "newest versions");
    let purpose = Purpose { what: "the archive's list", instead: "continue without it: a run needs only the pins" };
    let offers = maker.archive.offers(purpose, names, &mut step)?;
    step.done("known");
    Ok(offers)
}
