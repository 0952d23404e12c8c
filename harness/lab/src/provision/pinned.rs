//! Makes products from exactly the pinned packages, or from fitting substitutes if the archive no longer has a pin.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Maker;
use super::archive::{Purpose, unreachable};
use super::cache::{Key, Product};
use super::error::ProvisionError;
use super::pins;
use super::pins::Pin;
use super::substitute;
use crate::process::run::RunError;
use cxl_cram_kit::progress::Step;

/// The packages of a product.
pub(super) struct Set<'a> {
    /// The number and the title of its step.
    pub(super) step: (usize, &'static str),
    pub(super) product: Product,
    /// Raised when the way of making it changes.
    pub(super) recipe: &'static [u8],
    pub(super) purpose: Purpose,
    /// The pinned packages.
    pub(super) pins: &'a [Pin],
    /// The main packages; the others are their dependencies. If a pin is gone, all versions of the first are tried, newest
    /// first.
    pub(super) roots: &'a [&'a str],
    /// Whether to include dependencies.
    pub(super) dependencies: bool,
    /// The preferred suite of substitutes.
    pub(super) suite: Option<&'static str>,
    /// Which versions of the first main package can stand in.
    pub(super) candidates: fn(&Pin) -> bool,
    /// Which of the packages that the main ones need make the product, the main one first.
    pub(super) parts: fn(Vec<Pin>) -> Vec<Pin>,
    /// Other inputs that decide whether a substitute fits.
    pub(super) fitting: String,
}

/// A finished product.
pub(super) struct Made {
    pub(super) folder: PathBuf,
    pub(super) key: Key,
}

/// The product of an earlier run's substitutes.
struct StandIn {
    folder: PathBuf,
    key: Key,
    lead: String,
    is_recent: bool,
}

/// How long substitutes are used before the archive is queried for the pin again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes a product: from packages, whether they are substitutes, into a folder.
pub(super) type Make<'a> = &'a dyn Fn(&[Pin], bool, &Path, &mut Step) -> Result<(), ProvisionError>;

impl Maker<'_> {
    /// The product of the pinned packages, or of substitutes, with a message.
    pub(super) fn pinned(&self, set: &Set, make: Make) -> Result<Made, ProvisionError> {
        let key = pins::key(set.recipe, set.pins);
        if let Some(folder) = self.cache.finished(set.product, &key) {
            return Ok(Made { folder, key });
        }
        let asked = Key::of(&[("pinned", key.to_string().as_bytes()), ("fitting", set.fitting.as_bytes())]);
        let earlier = self.recorded_stand_in(set, &asked);
        let (number, title) = set.step;
        match &earlier {
            Some(made) if made.is_recent || self.looking || self.options.offline => {
                return Ok(self.use_stand_in(set, made));
            }
            None if self.options.offline && !self.looking => {
                return Err(ProvisionError::Offline { what: title.to_owned() });
            }
            _ => self.may_make()?,
        }
        let mut step = self.progress.step(number, super::STEPS, title);
        // The archive may have lost the pin only for a while: after some time, query it again.
        let gone = match (self.gone(set, &mut step), &earlier) {
            (Err(ProvisionError::Unreachable { .. } | ProvisionError::NoDebian { .. }), Some(made)) => {
                return Ok(self.use_stand_in(set, made));
            }
            (gone, _) => gone?,
        };
        if gone.is_empty() {
            let folder = self.product(set, &key, set.pins, false, make, &mut step)?;
            step.done("ready");
            return Ok(Made { folder, key });
        }
        self.stand_in(set, &gone, &asked, make, step)
    }

    /// The product of exactly these packages, which are in the archive.
    pub(super) fn product(
        &self,
        set: &Set,
        key: &Key,
        pins: &[Pin],
        stands_in: bool,
        make: Make,
        step: &mut Step,
    ) -> Result<PathBuf, ProvisionError> {
        if self.cache.finished(set.product, key).is_none() && self.cache.is_busy(set.product, key) {
            step.note("another run is making it; waiting");
        }
        self.or_no_space(self.cache.product(set.product, key, |folder| make(pins, stands_in, folder, step)))
    }

    /// The pins that the archive no longer has.
    fn gone<'a>(&self, set: &Set<'a>, step: &mut Step) -> Result<Vec<&'a Pin>, ProvisionError> {
        let names: Vec<&str> = set.pins.iter().map(|pin| pin.package.as_str()).collect();
        let offers = self.archive.offers(set.purpose, &names, step)?;
        let mut gone = Vec::new();
        for pin in set.pins {
            let is_it = |offer: &&Pin| (&offer.package, &offer.version) == (&pin.package, &pin.version);
            let same: Vec<&Pin> = offers.iter().filter(is_it).collect();
            match same.first() {
                _ if same.iter().any(|offer| offer.sha256 == pin.sha256) => {}
                None => gone.push(pin),
                Some(offer) => {
                    let (pinned, found) = (pin.sha256.clone(), offer.sha256.clone());
                    return Err(ProvisionError::OtherHash { what: pin.to_string(), pinned, found });
                }
            }
        }
        if !gone.is_empty() {
            // A suite that did not answer may still have the package.
            self.archive.answers_whole(set.purpose, step)?;
        }
        Ok(gone)
    }

    fn recorded_stand_in(&self, set: &Set, asked: &Key) -> Option<StandIn> {
        let (pins, age) = substitute::read(&self.cache, set.product, asked)?;
        let key = pins::key(set.recipe, &pins);
        let folder = self.cache.finished(set.product, &key)?;
        Some(StandIn { folder, key, lead: lead(set, &pins), is_recent: age < ASK_AGAIN })
    }

    fn use_stand_in(&self, set: &Set, made: &StandIn) -> Made {
        let StandIn { folder, key, lead, .. } = made;
        let what = set.step.1;
        self.progress.say(&format!("{what}: the archive had lost a pinned package; {lead} from the cache stands in"));
        Made { folder: folder.clone(), key: key.clone() }
    }

    fn stand_in(
        &self,
        set: &Set,
        gone: &[&Pin],
        asked: &Key,
        make: Make,
        mut step: Step,
    ) -> Result<Made, ProvisionError> {
        let [root, others @ ..] = set.roots else { return Err(ProvisionError::Absent) };
        let more = if gone.len() > 1 { format!(" (and {} more)", gone.len() - 1) } else { String::new() };
        let lost = format!("{}{more}", gone[0]);
        let mut tried = Vec::new();
        for candidate in self.archive.offers(set.purpose, &[root], &mut step)?.into_iter().filter(set.candidates) {
            let pins = if set.dependencies {
                let packages: Vec<String> =
                    [candidate.exactly()].into_iter().chain(others.iter().map(|&name| name.to_owned())).collect();
                self.archive.resolve(set.purpose, &packages, set.suite, &mut step).map(set.parts)
            } else {
                Ok(vec![candidate.clone()])
            };
            let made = pins.and_then(|pins| {
                let key = pins::key(set.recipe, &pins);
                Ok((self.product(set, &key, &pins, true, make, &mut step)?, key, pins))
            });
            match made {
                Ok((folder, key, pins)) => {
                    substitute::write(&self.cache, set.product, asked, &pins)?;
                    let newer = match tried.is_empty() {
                        true => "the newest that it has",
                        false => "the newest that it has and that fits",
                    };
                    let with = others_in_place(set, &pins);
                    step.note(&format!("the archive no longer has {lost}; taking {}{with}, {newer}", lead(set, &pins)));
                    step.done("ready");
                    return Ok(Made { folder, key });
                }
                Err(error) => match why_unfit(&error) {
                    Some(why) => tried.push((candidate.to_string(), why)),
                    None => return Err(error),
                },
            }
        }
        if tried.is_empty() {
            return Err(unreachable(set.purpose, format!("the archive has no {root}")));
        }
        let plain = if set.product == Product::KernelSource { "omit our patches with --plain, or " } else { "" };
        let instead = format!("{plain}{}", set.purpose.instead);
        Err(ProvisionError::NothingFits { pinned: lost, tried, instead })
    }
}

/// The other packages that differ from the pins: " with libc6 2.41-13 and 3 more".
fn others_in_place(set: &Set, pins: &[Pin]) -> String {
    let main = lead(set, pins);
    let is_new = |pin: &&Pin| pin.to_string() != main && !set.pins.iter().any(|was| was.sha256 == pin.sha256);
    let new: Vec<&Pin> = pins.iter().filter(is_new).collect();
    match new.as_slice() {
        [] => String::new(),
        [one] => format!(" with {one}"),
        [one, more @ ..] => format!(" with {one} and {} more", more.len()),
    }
}

/// The main package of a set.
fn lead(set: &Set, pins: &[Pin]) -> String {
    let root = set.roots.first().copied().unwrap_or_default();
    pins.iter().find(|pin| pin.package == root).or(pins.first()).map_or_else(String::new, Pin::to_string)
}

/// Why packages do not fit, or `None` for an error that other versions would meet too.
pub(super) fn why_unfit(error: &ProvisionError) -> Option<String> {
    match error {
        ProvisionError::PatchRefused { patch, why, .. } => {
            Some(format!("{} does not apply ({why})", patch.file_name().unwrap_or_default().to_string_lossy()))
        }
        ProvisionError::UnfitQemu { why, .. } | ProvisionError::Elf { why, .. } => Some(why.clone()),
        ProvisionError::Missing { path, .. } => Some(format!("it lacks {}", path.display())),
        ProvisionError::NoKernelTree { .. } => Some("it is not a kernel source tree".to_owned()),
        ProvisionError::Run(RunError::Failed { what, tail, .. }) => {
            let last = tail.lines().rev().find(|line| line.starts_with("E: ")).or(tail.lines().last());
            Some(format!("{what} failed ({})", last.unwrap_or_default()))
        }
        ProvisionError::ConfigDropped { lines } => Some(format!("its configuration dropped {}", lines.join(", "))),
        _ => None,
    }
}
