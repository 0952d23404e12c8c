//! Merges configuration fragments over a base, and finds the lines that Kconfig dropped.
//!
//! Kconfig silently drops a line with unmet dependencies. A guest without, say, memory hotplug would fail much later and
//! for no visible reason, so every dropped line is reported. Options that this kernel does not know at all are reported
//! separately: options come, go and are renamed between kernels.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::checks::Checks;
use crate::provision::cache::files_below;
use crate::provision::error::{IoContext, ProvisionError};
use crate::workspace::workspace;

/// The options that the guest needs in every kernel.
const GUEST: &str = "guest.config";
/// The options that turn `allnoconfig` into a usable kernel.
const MINIMAL: &str = "minimal.config";

/// The base configuration of a developer's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseConfig {
    /// Only the options that the guest needs.
    Minimal,
    /// A configuration file.
    File(PathBuf),
}

impl FromStr for BaseConfig {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<BaseConfig, Self::Err> {
        Ok(if text == "minimal" { BaseConfig::Minimal } else { BaseConfig::File(text.into()) })
    }
}

/// The requested lines, one for each option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::provision) struct Fragment {
    lines: BTreeMap<String, String>,
}

impl Fragment {
    /// The workspace's fragment, for a configuration that starts from nothing (`minimal`) or from a complete one.
    pub(super) fn of_workspace(minimal: bool, checks: Option<Checks>) -> Result<Fragment, ProvisionError> {
        let names = [minimal.then_some(MINIMAL), Some(GUEST), checks.map(Checks::fragment)];
        let mut text = String::new();
        for name in names.into_iter().flatten() {
            let path = workspace()?.join("guest-tests/kernel").join(name);
            text += &fs::read_to_string(&path).context("read", &path)?;
        }
        Ok(Fragment::parse(&text))
    }

    /// Parses a fragment. Of two lines for one option, the later one counts. Comments and other lines are ignored.
    pub(super) fn parse(text: &str) -> Fragment {
        let lines = text.lines().map(str::trim).filter_map(|line| Some((option(line)?.to_owned(), line.to_owned())));
        Fragment { lines: lines.collect() }
    }

    /// Whether it has no line.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// These lines with those of another fragment replacing and joining them.
    pub(super) fn with(mut self, other: Fragment) -> Fragment {
        self.lines.extend(other.lines);
        self
    }

    /// The lines that do not ask for a module.
    pub(super) fn without_modules(mut self) -> Fragment {
        self.lines.retain(|_, line| !line.ends_with("=m"));
        self
    }

    /// The lines for options that another fragment does not name.
    pub(super) fn besides(mut self, other: &Fragment) -> Fragment {
        self.lines.retain(|option, _| !other.lines.contains_key(option));
        self
    }

    /// The fragment as a file. It is sorted, so that comments and order do not change the kernel's key.
    pub(super) fn text(&self) -> String {
        self.lines.values().map(|line| format!("{line}\n")).collect()
    }

    /// A complete configuration with these lines replacing its own.
    pub(super) fn over(&self, base: &str) -> String {
        let stays = |line: &&str| !option(line.trim()).is_some_and(|option| self.lines.contains_key(option));
        base.lines().filter(stays).map(|line| format!("{line}\n")).collect::<String>() + &self.text()
    }

    /// The lines that are missing in `config`.
    pub(super) fn dropped(&self, config: &str) -> Vec<&str> {
        let lines: HashSet<&str> = config.lines().collect();
        let set: HashSet<&str> = config.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        let survived = |(option, line): &(&String, &String)| match unset_option(line) {
            // An option that is absent counts as not set.
            Some(_) => !set.contains(option.as_str()),
            None => lines.contains(line.as_str()),
        };
        self.lines.iter().filter(|line| !survived(line)).map(|(_, line)| line.as_str()).collect()
    }
}

/// The lines that a configuration step dropped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Lines of known options with unmet dependencies.
    pub(super) unmet: Vec<String>,
    /// Options that this kernel does not have.
    pub(super) unknown: Vec<String>,
}

impl Lost {
    /// Forgets the lines of this fragment.
    pub(super) fn forgive(&mut self, wishes: &Fragment) {
        self.unmet.retain(|line| option(line).is_none_or(|option| !wishes.lines.contains_key(option)));
        self.unknown.retain(|name| !wishes.lines.contains_key(&format!("CONFIG_{name}")));
    }

    /// Separates dropped lines into known and unknown options, from the tree's Kconfig files.
    pub(super) fn of(dropped: &[&str], tree: &Path) -> Result<Lost, ProvisionError> {
        let mut lost = Lost::default();
        if dropped.is_empty() {
            return Ok(lost);
        }
        let known = known(tree)?;
        for line in dropped {
            match option(line).and_then(|option| option.strip_prefix("CONFIG_")) {
                Some(name) if !known.contains(name) => lost.unknown.push(name.to_owned()),
                _ => lost.unmet.push((*line).to_owned()),
            }
        }
        Ok(lost)
    }
}

/// The names of all options in a tree's Kconfig files.
fn known(tree: &Path) -> Result<BTreeSet<String>, ProvisionError> {
    let mut known = BTreeSet::new();
    let is_kconfig =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"Kconfig"));
    for path in files_below(tree)?.into_iter().filter(is_kconfig) {
        let text = fs::read(&path).context("read", &path)?;
        for line in String::from_utf8_lossy(&text).lines() {
            let mut words = line.split_whitespace();
            if matches!(words.next(), Some("config" | "menuconfig")) {
                known.extend(words.next().map(str::to_owned));
            }
        }
    }
    Ok(known)
}

/// The option that a line sets or unsets.
fn option(line: &str) -> Option<&str> {
    unset_option(line).or_else(|| Some(line.split_once('=')?.0).filter(|option| option.starts_with("CONFIG_")))
}

/// The option of a "# CONFIG_X is not set" line.
fn unset_option(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.strip_suffix(" is not set").filter(|option| option.starts_with("CONFIG_"))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    const CONFIG: &str =
        "#\n# Automatically generated\n#\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_N=16\n# CONFIG_C is not set\n";

    #[test]
    fn a_configuration_that_has_every_line_passes() {
        let fragment = Fragment::parse(
            "# Why: because\nCONFIG_A=y\n\nCONFIG_B=m\nCONFIG_N=16\n# CONFIG_C is not set\n# CONFIG_D is not set\n",
        );
        assert_eq!(fragment.dropped(CONFIG), Vec::<&str>::new());
    }

    #[test]
    fn a_dropped_changed_or_forced_option_is_named() {
        let fragment = Fragment::parse("# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_E=y\nCONFIG_N=1\n");
        assert_eq!(fragment.dropped(CONFIG), ["# CONFIG_A is not set", "CONFIG_B=y", "CONFIG_E=y", "CONFIG_N=1"]);
    }

    #[test]
    fn comments_and_order_do_not_count_and_the_later_line_wins() {
        let fragment = Fragment::parse("# Why\nCONFIG_B=m\n\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_D\nnonsense\n");
        assert_eq!(fragment.text(), "CONFIG_A=y\nCONFIG_B=y\n");
    }

    #[test]
    fn a_merged_configuration_has_each_option_once() {
        let fragment = Fragment::parse("CONFIG_B=y\nCONFIG_C=y\n# CONFIG_A is not set\nCONFIG_D=y\n");
        let merged = fragment.over(CONFIG);
        assert!(merged.starts_with("#\n# Automatically generated\n#\nCONFIG_N=16\n"), "{merged}");
        assert_eq!(fragment.dropped(&merged), Vec::<&str>::new());
        assert_eq!(merged.lines().filter(|line| option(line).is_some()).count(), 5);
    }

    #[test]
    fn unknown_options_are_distinguished_from_unmet_dependencies() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("mm")).unwrap();
        fs::write(tree.path().join("mm/Kconfig.debug"), "menuconfig OLD\n\tbool \"x\"\nconfig NEW_THING\n").unwrap();
        fs::write(tree.path().join("mm/other"), "config MADE_UP\n").unwrap();
        let lost = Lost::of(&["CONFIG_OLD=y", "CONFIG_NEW_THING=m", "CONFIG_MADE_UP=y"], tree.path()).unwrap();
        assert_eq!(lost.unmet, ["CONFIG_OLD=y", "CONFIG_NEW_THING=m"]);
        assert_eq!(lost.unknown, ["MADE_UP"]);
    }

    #[test]
    fn the_fragments_list_each_option_once_and_make_cxl_acpi_a_module() {
        let mut all = Vec::new();
        for name in [GUEST, MINIMAL] {
            let text = fs::read_to_string(workspace().unwrap().join("guest-tests/kernel").join(name)).unwrap();
            all.extend(text.lines().filter_map(option).map(str::to_owned).collect::<Vec<_>>());
        }
        let fragment = Fragment::of_workspace(true, None).unwrap();
        assert_eq!(fragment.lines.len(), all.len());
        assert_eq!(fragment.lines["CONFIG_CXL_ACPI"], "CONFIG_CXL_ACPI=m");
        for checks in Checks::value_variants() {
            let lines = Fragment::of_workspace(false, Some(*checks)).unwrap().lines;
            assert!(
                lines.contains_key("CONFIG_DEBUG_VM") && lines.contains_key("CONFIG_PAGE_TABLE_CHECK"),
                "{checks:?}"
            );
            assert!(!lines.contains_key("CONFIG_NR_CPUS"));
        }
    }
}
