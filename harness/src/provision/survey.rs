//! What this machine has of what a run needs, and what would have to be fetched or built: looked at, never made.

use super::{Cache, Maker, NEEDED_MIB, Options, Progress, ProvisionError, debian::Debian, host_tools};

/// What there is to say of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is there: which.
    Ready(String),
    /// It is not there, and a run gets it.
    Later(String),
    /// It is not there, and a run would end with this.
    Lacking(String),
}

/// Looks at everything that provisioning deals with. A thing and its finding, each.
///
/// # Errors
/// There is no cache to look into.
pub fn survey(options: &Options) -> Result<Vec<(&'static str, Finding)>, ProvisionError> {
    let progress = Progress::quiet();
    let maker = Maker { looking: true, ..Maker::new(options, &progress)? };
    let archive = Debian::of_this_machine(&maker.cache, "what is missing", "bring it along, `run --help` tells how");
    let missing = host_tools::lacking();
    let tools = match (missing.is_empty(), !options.offline && host_tools::can_install()) {
        (true, _) => Finding::Ready("all there".into()),
        (false, true) => Finding::Later(format!("{} will be installed", missing.join(" "))),
        (false, false) => Finding::Lacking(ProvisionError::MissingTools { packages: missing.join(" ") }.to_string()),
    };
    // What is made of something that is missing is missing too, whoever brings what.
    let fetched = |found: Result<String, ProvisionError>| match (found, &archive) {
        (Ok(what), _) => Finding::Ready(what),
        (Err(ProvisionError::Absent), _) if options.offline => {
            Finding::Lacking("not in the cache yet: run once without --offline".into())
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
    let source = match (&kernel, &options.kernel, &options.kernel_tree) {
        (Ok(_), ..) | (_, Some(_), _) | (_, _, Some(_)) => None,
        _ => Some(fetched(maker.package_source().map(|source| source.tree.display().to_string()))),
    };
    let shown = |path: std::path::PathBuf| path.display().to_string();
    let mut findings = vec![
        ("QEMU", fetched(qemu.map(|qemu| format!("{}, {}", qemu.version, qemu.program().display())))),
        ("guest kernel", built(kernel)),
        ("guest program", built(maker.guest_program().map(shown))),
        ("guest tools", fetched(maker.guest_tools().map(shown))),
        ("corpus", built(corpus.map(shown))),
    ];
    findings.extend(source.map(|source| ("kernel source", source)));
    // Without anything to make, neither tools nor room are needed.
    let complete = findings.iter().all(|(_, finding)| matches!(finding, Finding::Ready(_)));
    findings.push(("build tools", if complete { unneeded(tools) } else { tools }));
    findings.push(("disk", room(&maker, complete)));
    findings.push((
        "package archive",
        match archive {
            Ok(_) => Finding::Ready("apt is configured with a Debian mirror".into()),
            Err(why) if complete => unneeded(Finding::Lacking(why.to_string())),
            Err(why) => Finding::Later(why.to_string()),
        },
    ));
    Ok(findings)
}

/// What is lacking, and not needed: everything is in the cache.
fn unneeded(finding: Finding) -> Finding {
    match finding {
        Finding::Lacking(why) => Finding::Later(format!("not needed now; {why}")),
        other => other,
    }
}

fn room(maker: &Maker, complete: bool) -> Finding {
    let cache: &Cache = &maker.cache;
    match maker.free_mib() {
        Ok(free) => {
            let text = format!("{free} MiB free in {}", cache.root().display());
            if free >= NEEDED_MIB {
                Finding::Ready(text)
            } else if complete {
                Finding::Later(format!("{text}; a kernel build wants {NEEDED_MIB} MiB"))
            } else {
                Finding::Lacking(format!("{text}, and {NEEDED_MIB} MiB are needed: make room or give --cache-dir"))
            }
        }
        Err(error) => Finding::Lacking(error.to_string()),
    }
}
