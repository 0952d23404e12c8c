//! This project's own series, stored once for all kernels that they are made for.
//!
//! A patch creates files, which are the same for every kernel, and changes others, which are not. So it is stored in parts of
//! the same name:
//!
//! ```text
//! private-nodes/0004-mm-let-a-driver-own.patch                              its message, and the files that the series creates
//! 7.3/private-nodes/0004-mm-let-a-driver-own.diff                           what it changes in 7.3
//! 6.12/private-nodes/0004-mm-let-a-driver-own.diff                          what it changes in 6.12
//! 6.12/refreshed/up-to-6.12.107/private-nodes/0004-mm-let-a-driver-own.diff and in 6.12.107 and older, where that differs
//! ```
//!
//! A patch that creates and changes nothing for a kernel is not part of the series for that kernel.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::mail::Mail;
use super::{Patch, Series, Text};
use crate::provision::cache::list;
use crate::provision::error::{IoContext, ProvisionError};
use crate::workspace::workspace;

/// The series, each based on the previous ones.
const SERIES: [&str; 2] = ["private-nodes", "cram"];
/// The folder of a kernel with what older releases of it need instead.
const REFRESHED: &str = "refreshed";

/// The folder with the stored series.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    root: PathBuf,
}

/// A patch of a series: `private-nodes`, and a name without extension.
type Name = (&'static str, String);

/// How much of a patch is stored for all kernels, and how much for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// The series.
    pub(crate) series: &'static str,
    /// The patch, without extension.
    pub(crate) patch: String,
    /// Number of changed lines that are the same for every kernel.
    pub(crate) shared: usize,
    /// Number of changed lines for each kernel that has the patch.
    pub(crate) kernels: BTreeMap<String, usize>,
}

impl Stored {
    /// Those of this project.
    pub(crate) fn own() -> Result<Stored, ProvisionError> {
        Ok(Stored { root: workspace()?.join("guest-tests/kernel/series") })
    }

    /// The kernels that they are made for, `6.12`, the newest first.
    pub(crate) fn kernels(&self) -> Result<Vec<String>, ProvisionError> {
        let name = |path: PathBuf| path.is_dir().then(|| path.file_name()?.to_str().map(str::to_owned)).flatten();
        let mut kernels: Vec<String> = list(&self.root)?.into_iter().filter_map(name).collect();
        kernels.retain(|name| !SERIES.contains(&name.as_str()));
        kernels.sort_by_key(|name| Reverse(numbers(name)));
        Ok(kernels)
    }

    /// The series for a kernel, `6.12`, in order; none if they are not made for it.
    pub(in crate::provision) fn series(&self, kernel: &str) -> Result<Series, ProvisionError> {
        if !self.kernels()?.iter().any(|known| known == kernel) {
            return Ok(Series::default());
        }
        let mut patches = Vec::new();
        for name in self.names()? {
            let shared = self.shared(&name)?;
            let own = self.own_part(kernel, &name);
            let mut texts = Vec::new();
            let compose = |path: &Path| -> Result<Text, ProvisionError> {
                let mail = with(&shared, read(path)?);
                Ok(Text { path: path.to_owned(), content: mail.to_string().into_bytes() })
            };
            if own.is_file() {
                texts.push(compose(&own)?);
                for refresh in self.refreshes(kernel, &name)? {
                    texts.push(compose(&refresh)?);
                }
            } else if !shared.sections.is_empty() {
                let path = self.shared_part(&name);
                texts.push(Text { path, content: shared.to_string().into_bytes() });
            }
            patches.extend((!texts.is_empty()).then_some(Patch { texts }));
        }
        self.check(kernel)?;
        Ok(Series { patches })
    }

    /// Writes the series for a kernel, `7.3` or a release of it, `6.12.107`, as patches for `git am`: `folder/SERIES/*.patch`.
    /// Returns their number. The folder must be empty or not exist.
    pub(crate) fn make(&self, kernel: &str, folder: &Path) -> Result<usize, ProvisionError> {
        let known = self.kernels()?;
        let of = known.iter().find(|known| kernel == *known || kernel.starts_with(&format!("{known}.")));
        let Some(of) = of else {
            let why = format!("there is none for {kernel}; there are series for {}", known.join(" and "));
            return Err(ProvisionError::BadSeries { path: self.root.clone(), why });
        };
        if folder.exists() && !list(folder)?.is_empty() {
            let why = "it is not empty; give a folder that is, or a new one".into();
            return Err(ProvisionError::BadSeries { path: folder.into(), why });
        }
        let series = self.series(of)?;
        for patch in &series.patches {
            let text = patch.for_release(kernel);
            let part = text.path.strip_prefix(&self.root).unwrap_or(&text.path);
            let (name, series) = (part.with_extension("patch"), part.parent().and_then(Path::file_name));
            let to = folder.join(series.unwrap_or_default());
            fs::create_dir_all(&to).context("create", &to)?;
            let to = to.join(name.file_name().unwrap_or_default());
            fs::write(&to, &text.content).context("write", &to)?;
        }
        Ok(series.patches.len())
    }

    /// Replaces the series for a kernel by the patches in `folder/SERIES/*.patch`. What is the same for every kernel must be as
    /// it is stored, unless this kernel leads: then it is replaced, too. Nothing is written if there is an error.
    pub(crate) fn split(&self, kernel: &str, folder: &Path, leads: bool) -> Result<usize, ProvisionError> {
        let wrong = |path: &Path, why: String| Err(ProvisionError::BadSeries { path: path.into(), why });
        if numbers(kernel).len() != 2 || kernel.split('.').any(|number| number.parse::<u16>().is_err()) {
            return wrong(folder, format!("{kernel:?} is no kernel that a series can be for; name one like 7.3"));
        }
        let mut mails = BTreeMap::new();
        for series in SERIES {
            for path in list(&folder.join(series))?.into_iter().filter(|path| has_extension(path, "patch")) {
                mails.insert((series, stem(&path)), read(&path)?);
            }
        }
        let stored = self.names()?;
        let mut shared_before = BTreeMap::new();
        for name in &stored {
            shared_before.insert(name.clone(), self.shared(name)?);
        }
        let created = |mails: &BTreeMap<Name, Mail>| -> BTreeSet<String> {
            let sections = mails.values().flat_map(|mail| &mail.sections);
            sections.filter(|section| section.creates()).map(|section| section.path.clone()).collect()
        };
        let files = if leads { created(&mails) } else { created(&shared_before) };

        let mut writes: Vec<(PathBuf, String)> = Vec::new();
        let mut differs = Vec::new();
        for (name, mail) in &mails {
            let (shared, own): (Vec<_>, Vec<_>) =
                mail.sections.iter().cloned().partition(|section| files.contains(&section.path));
            let shared = Mail { message: normalised(&mail.message), sections: shared };
            let label = format!("{}/{}", name.0, name.1);
            match shared_before.get(name) {
                Some(before) if !leads => {
                    differs.extend(differences(before, &shared).map(|what| format!("{label}: {what}")))
                }
                None if !leads && !shared.sections.is_empty() => differs.push(format!("{label}: it is not stored")),
                _ => writes.push((self.shared_part(name), shared.to_string())),
            }
            if !own.is_empty() {
                let own = Mail { message: String::new(), sections: own };
                writes.push((self.own_part(kernel, name), own.to_string()));
            }
        }
        if !leads {
            let missing =
                shared_before.iter().filter(|(name, mail)| !mails.contains_key(*name) && !mail.sections.is_empty());
            differs.extend(missing.map(|(name, _)| format!("{}/{}: it is missing", name.0, name.1)));
        }
        if !differs.is_empty() {
            let why = format!(
                "what is the same for every kernel differs from what is stored ({}); make it alike, or give --leads",
                differs.join("; ")
            );
            return wrong(folder, why);
        }

        for series in SERIES {
            let own = self.root.join(kernel).join(series);
            if own.is_dir() {
                fs::remove_dir_all(&own).context("remove", &own)?;
            }
        }
        for (path, text) in &writes {
            let folder = path.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder).context("create", folder)?;
            fs::write(path, text).context("write", path)?;
        }
        // A patch that this kernel no longer has may still be one of another's.
        for name in stored.iter().filter(|name| leads && !mails.contains_key(*name)) {
            let path = self.shared_part(name);
            if self.kernels()?.iter().any(|kernel| self.own_part(kernel, name).is_file()) {
                let message = Mail { sections: Vec::new(), ..self.shared(name)? };
                fs::write(&path, message.to_string()).context("write", &path)?;
            } else {
                fs::remove_file(&path).context("remove", &path)?;
            }
        }
        Ok(mails.len())
    }

    /// How much of each patch is shared.
    pub(crate) fn shares(&self) -> Result<Vec<Share>, ProvisionError> {
        let mut shares = Vec::new();
        for name in self.names()? {
            let shared = self.shared(&name)?.lines();
            let mut kernels = BTreeMap::new();
            for kernel in self.kernels()? {
                let own = self.own_part(&kernel, &name);
                if own.is_file() {
                    kernels.insert(kernel, read(&own)?.lines());
                } else if shared > 0 {
                    kernels.insert(kernel, 0);
                }
            }
            shares.push(Share { series: name.0, patch: name.1, shared, kernels });
        }
        Ok(shares)
    }

    /// All patches, in the order in which they are applied.
    fn names(&self) -> Result<Vec<Name>, ProvisionError> {
        let mut names = Vec::new();
        for series in SERIES {
            let folder = self.root.join(series);
            if folder.is_dir() {
                let patches = list(&folder)?.into_iter().filter(|path| has_extension(path, "patch"));
                names.extend(patches.map(|path| (series, stem(&path))));
            }
        }
        Ok(names)
    }

    fn shared_part(&self, (series, name): &Name) -> PathBuf {
        self.root.join(series).join(format!("{name}.patch"))
    }

    fn own_part(&self, kernel: &str, (series, name): &Name) -> PathBuf {
        self.root.join(kernel).join(series).join(format!("{name}.diff"))
    }

    fn shared(&self, name: &Name) -> Result<Mail, ProvisionError> {
        read(&self.shared_part(name))
    }

    /// The refreshes of a patch, those for the newest releases first.
    fn refreshes(&self, kernel: &str, (series, name): &Name) -> Result<Vec<PathBuf>, ProvisionError> {
        let folder = self.root.join(kernel).join(REFRESHED);
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut releases = list(&folder)?;
        releases.sort_by_key(|path| Reverse(numbers(&stem_of_folder(path))));
        let parts = releases.into_iter().map(|release| release.join(series).join(format!("{name}.diff")));
        Ok(parts.filter(|path| path.is_file()).collect())
    }

    /// Every part for a kernel belongs to a patch, and every refresh to a part.
    fn check(&self, kernel: &str) -> Result<(), ProvisionError> {
        let folder = self.root.join(kernel);
        let check = |parts: &Path, of: &dyn Fn(&Name) -> PathBuf| -> Result<(), ProvisionError> {
            for series in SERIES {
                let folder = parts.join(series);
                let found = if folder.is_dir() { list(&folder)? } else { Vec::new() };
                for path in found.into_iter().filter(|path| has_extension(path, "diff")) {
                    let whole = of(&(series, stem(&path)));
                    if !whole.is_file() {
                        let hint = format!("{} is a part of it; remove or rename that", path.display());
                        return Err(ProvisionError::Missing { path: whole, hint });
                    }
                }
            }
            Ok(())
        };
        check(&folder, &|name| self.shared_part(name))?;
        let refreshed = folder.join(REFRESHED);
        let releases = if refreshed.is_dir() { list(&refreshed)? } else { Vec::new() };
        releases.iter().try_for_each(|release| check(release, &|name| self.own_part(kernel, name)))
    }
}

impl Patch {
    /// The text for a release: of the refreshes that hold for it, that for the oldest, else the first.
    fn for_release(&self, release: &str) -> &Text {
        let up_to = |text: &&Text| {
            let folder = text.path.ancestors().nth(2).map(stem_of_folder).unwrap_or_default();
            folder.starts_with("up-to-") && numbers(release).len() > 2 && numbers(&folder) >= numbers(release)
        };
        self.texts.iter().rev().find(up_to).unwrap_or(&self.texts[0])
    }
}

fn read(path: &Path) -> Result<Mail, ProvisionError> {
    let text = fs::read_to_string(path).context("read", path)?;
    Mail::parse(&text).map_err(|why| ProvisionError::BadSeries { path: path.into(), why })
}

/// A patch of what is the same for every kernel, and what is one's own.
fn with(shared: &Mail, own: Mail) -> Mail {
    let mut mail = shared.clone();
    mail.sections.extend(own.sections);
    mail.sections.sort_by(|one, other| one.path.cmp(&other.path));
    mail
}

/// In what two patches differ, in words.
fn differences(one: &Mail, other: &Mail) -> impl Iterator<Item = String> {
    let sections = |mail: &Mail| -> BTreeMap<String, String> {
        mail.sections.iter().map(|section| (section.path.clone(), section.text.clone())).collect()
    };
    let (before, after) = (sections(one), sections(other));
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let message = (one.message.trim_end() != other.message.trim_end()).then(|| "the message".to_owned());
    message.into_iter().chain(paths.into_iter().filter(move |path| before.get(path) != after.get(path)))
}

/// A message without the commit that it was made of, which differs each time.
fn normalised(message: &str) -> String {
    match message.split_once('\n') {
        Some((first, rest)) if first.starts_with("From ") => {
            format!("From {} Mon Sep 17 00:00:00 2001\n{rest}", "0".repeat(40))
        }
        _ => message.to_owned(),
    }
}

fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem_of_folder(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
