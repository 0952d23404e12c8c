//! Finds newer versions of pinned packages, and tries which of them fit.

use std::fmt;

use super::archive::unreachable;
use super::cache::Scratch;
use super::error::{IoContext, ProvisionError};
use super::pinned::{Set, why_unfit};
use super::pins;
use super::pins::{Pin, Pins};
use super::{Distribution, Maker, Options, Progress, STEPS, firmware, guest_tools, kernel, qemu};

/// The steps of looking for newer packages.
const MOVES: usize = 6;

/// The result of trying a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It fits.
    Fits,
    /// It does not fit: the reason.
    Unfit(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Fits => f.write_str("fits"),
            Verdict::Unfit(why) => write!(f, "does not fit: {why}"),
        }
    }
}

/// Newer versions, and new pins that take them.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// The current pins.
    pub old: Pins,
    /// The pins with the newest version of everything that fits.
    pub new: Pins,
    /// Every newer version tried and its verdict, newest first.
    pub tried: Vec<(String, Verdict)>,
}

impl Candidates {
    /// The changes of the pins, a line for each package: `libc6 2.41-12 -> 2.41-13`.
    pub fn changes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for ((_, old, _), (_, new, _)) in self.old.sets().into_iter().zip(self.new.sets()) {
            for pin in new {
                match old.iter().find(|was| was.package == pin.package) {
                    Some(was) if was.version != pin.version => lines.push(format!("{was} -> {}", pin.version)),
                    Some(was) if was.sha256 != pin.sha256 => lines.push(format!("{pin}: another file")),
                    Some(_) => {}
                    None => lines.push(format!("{pin}: new")),
                }
            }
            let gone = old.iter().filter(|was| !new.iter().any(|pin| pin.package == was.package));
            lines.extend(gone.map(|was| format!("{was}: no longer needed")));
        }
        lines
    }

    /// Whether any newer version does not fit.
    pub fn has_unfit(&self) -> bool {
        self.tried.iter().any(|(_, verdict)| matches!(verdict, Verdict::Unfit(_)))
    }
}

/// Finds newer versions of everything pinned and tries them: applies the series to each newer kernel source, starts the
/// newest QEMU, and builds the guest tools from the newest packages.
///
/// # Errors
/// The archive does not answer, or a file operation fails. A version that does not fit is not an error.
pub fn candidates(options: &Options, progress: &Progress) -> Result<Candidates, ProvisionError> {
    let maker = Maker::asking(options, progress)?;
    let old = maker.pins()?.clone();
    let mut new = old.clone();
    let mut tried = Vec::new();
    if let Some(pin) = old.kernel() {
        let mut step = progress.step(1, MOVES, "newer kernel sources");
        let offers = maker.archive.offers(kernel::source::PURPOSE, &[&pin.package], &mut step)?;
        step.done(&format!("the archive has {} versions of {}", offers.len(), pin.package));
        let is_newer = |offer: &&Pin| deb_version::compare_versions(&offer.version, &pin.version).is_gt();
        let mut taken = false;
        for offer in offers.iter().filter(is_newer) {
            let verdict = maker.try_source(offer)?;
            if verdict == Verdict::Fits && !taken {
                (new.kernel_source, taken) = (vec![offer.clone()], true);
            }
            tried.push((offer.to_string(), verdict));
        }
    }
    let [debian, backports] = Distribution::ALL.map(|distribution| kernel::distribution::set(distribution, &old));
    let sets: [(Set, &str, &mut Vec<Pin>); 5] = [
        (qemu::set(&old.qemu), "newer QEMU", &mut new.qemu),
        (guest_tools::set(&old.guest_tools), "newer guest tools", &mut new.guest_tools),
        (firmware::set(&old.ovmf), "newer OVMF", &mut new.ovmf),
        (debian, "newer Debian kernel", &mut new.kernel_debian),
        (backports, "newer backports kernel", &mut new.kernel_debian_backports),
    ];
    for (index, (set, title, place)) in sets.into_iter().enumerate().filter(|(_, (set, ..))| !set.pins.is_empty()) {
        let mut step = progress.step(index + 2, MOVES, title);
        let roots: Vec<String> = set.roots.iter().map(|&root| root.to_owned()).collect();
        let mut newest = (set.parts)(maker.archive.resolve(set.purpose, &roots, set.suite, &mut step)?);
        // The main packages come first in the file.
        newest.sort_by_key(|pin| set.roots.iter().position(|root| *root == pin.package).unwrap_or(set.roots.len()));
        if pins::key(set.recipe, &newest) == pins::key(set.recipe, set.pins) {
            step.done("pinned already");
            continue;
        }
        let make: super::pinned::Make = match index {
            0 => &|pins, _, folder, step| qemu::make(&maker.cache, &maker.archive, pins, folder, step),
            1 => &|pins, _, folder, step| guest_tools::make(&maker.cache, &maker.archive, pins, folder, step),
            2 => &|pins, _, folder, step| firmware::make(&maker.cache, &maker.archive, pins, folder, step),
            _ => &|pins, _, folder, step| kernel::distribution::make(&maker.cache, &maker.archive, pins, folder, step),
        };
        let key = pins::key(set.recipe, &newest);
        let verdict = verdict(maker.product(&set, &key, &newest, true, make, &mut step).map(|_| ()))?;
        step.done(&verdict.to_string());
        tried.push((newest.first().map_or_else(String::new, Pin::to_string), verdict.clone()));
        if verdict == Verdict::Fits {
            *place = newest;
        }
    }
    Ok(Candidates { old, new, tried })
}

/// Tries the series on every version of the pinned kernel source in the archive, newest first.
///
/// # Errors
/// The archive does not answer, or a file operation fails. A version that does not fit is not an error.
pub fn fit_of(options: &Options, progress: &Progress) -> Result<Vec<(String, Verdict)>, ProvisionError> {
    let maker = Maker::asking(options, progress)?;
    let Some(pin) = maker.pins()?.kernel() else { return Ok(Vec::new()) };
    let mut step = progress.step(1, 1, "kernel sources");
    let offers = maker.archive.offers(kernel::source::PURPOSE, &[&pin.package], &mut step)?;
    step.done(&format!("the archive has {} versions of {}", offers.len(), pin.package));
    offers.iter().map(|offer| Ok((offer.to_string(), maker.try_source(offer)?))).collect()
}

impl<'a> Maker<'a> {
    /// A maker for an archive that answers completely. From a partial answer, nothing can be concluded.
    fn asking(options: &'a Options, progress: &'a Progress) -> Result<Maker<'a>, ProvisionError> {
        if options.offline {
            return Err(ProvisionError::OfflineQuestion);
        }
        let maker = Maker::new(options, progress)?;
        let purpose = kernel::source::PURPOSE;
        let mut step = progress.step(1, 1, "package archive");
        maker.archive.answers_whole(purpose, &mut step)?;
        step.done("it answers");
        if let Some(pin) = maker.pins()?.kernel()
            && maker.archive.offers(purpose, &[&pin.package], &mut progress.step(1, 1, "kernel sources"))?.is_empty()
        {
            return Err(unreachable(purpose, format!("the archive has no {}", pin.package)));
        }
        Ok(maker)
    }

    /// Tries the series on a source, which is not kept.
    fn try_source(&self, pin: &Pin) -> Result<Verdict, ProvisionError> {
        let mut step = self.progress.step(1, STEPS, &pin.to_string());
        let series = self.series()?;
        let scratch = tempfile::Builder::new().prefix("try-").tempdir_in(self.cache.scratch(Scratch::Apt)?);
        let scratch = scratch.context("create a folder in", self.cache.root())?;
        let files = series.touched();
        let part = kernel::source::make_part(&self.cache, &self.archive, pin, &files, scratch.path(), &mut step);
        let fits = part.and_then(|()| {
            let tree = kernel::source::in_product(scratch.path());
            series.fits(&tree, &self.cache.log("kernel-series")?, &mut step)
        });
        let verdict = verdict(fits)?;
        step.done(&verdict.to_string());
        Ok(verdict)
    }
}

fn verdict(tried: Result<(), ProvisionError>) -> Result<Verdict, ProvisionError> {
    match tried {
        Ok(()) => Ok(Verdict::Fits),
        Err(error) => why_unfit(&error).map(Verdict::Unfit).ok_or(error),
    }
}
