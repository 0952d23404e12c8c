//! Holds a finished kernel configuration against the fragment it was made from.
//!
//! Kconfig drops a line whose dependencies are not met without a word. A guest that then lacks, say, its memory
//! hotplug fails much later and for no visible reason, so a dropped line stops the build.

use std::collections::HashSet;

/// The lines of `fragment` that did not survive into `config`.
pub(super) fn dropped<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let lines: HashSet<&str> = config.lines().collect();
    let set: HashSet<&str> = config.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let survived = |line: &str| match unset_option(line) {
        // An option that nothing shows any more is as good as one that is shown as not set.
        Some(option) => !set.contains(option),
        None => lines.contains(line),
    };
    options(fragment).filter(|line| !survived(line)).collect()
}

/// The lines of a fragment that say something, without remarks and blank lines.
pub(super) fn options(fragment: &str) -> impl Iterator<Item = &str> {
    let speaks = |line: &&str| !line.is_empty() && (!line.starts_with('#') || unset_option(line).is_some());
    fragment.lines().map(str::trim).filter(speaks)
}

/// The option of a "# CONFIG_X is not set" line.
fn unset_option(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?.strip_suffix(" is not set").filter(|option| option.starts_with("CONFIG_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str =
        "#\n# Automatically generated\n#\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_N=16\n# CONFIG_C is not set\n";

    #[test]
    fn a_configuration_that_has_every_line_passes() {
        let fragment =
            "# Why: because\nCONFIG_A=y\n\nCONFIG_B=m\nCONFIG_N=16\n# CONFIG_C is not set\n# CONFIG_D is not set\n";
        assert_eq!(dropped(fragment, CONFIG), Vec::<&str>::new());
    }

    #[test]
    fn remarks_and_blank_lines_are_no_options() {
        let fragment = "# Why: because\n\nCONFIG_A=y\n # CONFIG_C is not set\n# CONFIG_D\n";
        assert_eq!(options(fragment).collect::<Vec<_>>(), ["CONFIG_A=y", "# CONFIG_C is not set"]);
    }

    #[test]
    fn a_dropped_changed_or_forced_option_is_named() {
        let fragment = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_E=y\nCONFIG_N=1\n# CONFIG_A is not set\nnonsense\n";
        let expected = ["CONFIG_B=y", "CONFIG_E=y", "CONFIG_N=1", "# CONFIG_A is not set", "nonsense"];
        assert_eq!(dropped(fragment, CONFIG), expected);
    }
}
