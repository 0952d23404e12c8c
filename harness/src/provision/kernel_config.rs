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
        None => line.starts_with('#') || lines.contains(line),
    };
    fragment.lines().map(str::trim).filter(|line| !line.is_empty() && !survived(line)).collect()
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
    fn a_dropped_changed_or_forced_option_is_named() {
        let fragment = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_E=y\nCONFIG_N=1\n# CONFIG_A is not set\nnonsense\n";
        let expected = ["CONFIG_B=y", "CONFIG_E=y", "CONFIG_N=1", "# CONFIG_A is not set", "nonsense"];
        assert_eq!(dropped(fragment, CONFIG), expected);
    }
}
