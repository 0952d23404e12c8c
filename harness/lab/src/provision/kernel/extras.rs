//! What the user adds to a kernel that is built: options, fragments of options, and modules of its tree.

use std::path::Path;
use std::str::FromStr;

use super::config::Fragment;
use crate::provision::error::ProvisionError;
use crate::provision::{Options, pins};

/// An option of the kernel's configuration with its value, as a line of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelOption(String);

impl FromStr for KernelOption {
    type Err = String;

    fn from_str(text: &str) -> Result<KernelOption, String> {
        let wrong = || "give an option and its value: NAME=y, m, n, a number, or a text in double quotes".to_owned();
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let name = name.strip_prefix("CONFIG_").unwrap_or(name);
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let hexadecimal = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let quoted = |text: &str| {
            let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            inner.is_some_and(|inner| !inner.contains(|c: char| c == '"' || c == '\\' || c.is_control()))
        };
        let is_value = matches!(value, "y" | "m")
            || digits(value.strip_prefix('-').unwrap_or(value))
            || value.strip_prefix("0x").is_some_and(hexadecimal)
            || quoted(value);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(wrong());
        }
        match value {
            "n" => Ok(KernelOption(format!("# CONFIG_{name} is not set"))),
            _ if is_value => Ok(KernelOption(format!("CONFIG_{name}={value}"))),
            _ => Err(wrong()),
        }
    }
}

/// A module of a kernel's tree: the path of its file, as `make` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeModule(String);

impl FromStr for TreeModule {
    type Err = String;

    fn from_str(text: &str) -> Result<TreeModule, String> {
        let path = text.strip_suffix(".ko").unwrap_or(text);
        let is_part = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        match path.contains('/') && !path.starts_with('-') && path.split('/').all(is_part) {
            true => Ok(TreeModule(format!("{path}.ko"))),
            false => Err("give the module's path in the kernel's tree, such as drivers/cxl/cxl_mine.ko".into()),
        }
    }
}

impl AsRef<Path> for TreeModule {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl TreeModule {
    /// The target of `make`.
    pub(super) fn target(&self) -> &str {
        &self.0
    }
}

/// The user's lines; of two for one option the later one counts, and an option on the command line over one in a file.
pub(super) fn fragment(options: &Options) -> Result<Fragment, ProvisionError> {
    let mut text = String::new();
    for file in &options.kernel_fragments {
        text += &pins::read_small(file)?;
        text.push('\n');
    }
    options.kernel_options.iter().for_each(|option| text += &format!("{}\n", option.0));
    Ok(Fragment::parse(&text))
}

/// The lines that this kernel should have where it can. Modules are left out: nothing would build them.
pub(super) fn wishes(options: &Options) -> Result<Fragment, ProvisionError> {
    let mut text = String::new();
    for file in &options.kernel_wishes {
        text += &pins::read_small(file)?;
        text.push('\n');
    }
    Ok(Fragment::parse(&text).without_modules())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_a_line_of_a_fragment() {
        for (text, line) in [
            ("KSM=y", "CONFIG_KSM=y"),
            ("CONFIG_ZRAM=m", "CONFIG_ZRAM=m"),
            ("DEBUG_VM=n", "# CONFIG_DEBUG_VM is not set"),
            ("NR_CPUS=16", "CONFIG_NR_CPUS=16"),
            ("PHYSICAL_START=0x1000000", "CONFIG_PHYSICAL_START=0x1000000"),
            ("LOCALVERSION=\"-mine\"", "CONFIG_LOCALVERSION=\"-mine\""),
        ] {
            assert_eq!(text.parse(), Ok(KernelOption(line.into())), "{text}");
        }
        for wrong in
            ["KSM", "=y", "CONFIG_=y", "KSM=yes", "KSM=", "A B=y", "X=\"a\"b\"", "X=\"a\nCONFIG_Y=y\"", "0x=0x"]
        {
            assert!(wrong.parse::<KernelOption>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_module_is_a_path_inside_the_tree() {
        for text in ["drivers/cxl/cxl_mine", "drivers/cxl/cxl_mine.ko"] {
            assert_eq!(text.parse(), Ok(TreeModule("drivers/cxl/cxl_mine.ko".into())));
        }
        for wrong in ["", "cxl_mine", "/drivers/x.ko", "drivers/../x.ko", "-C/x", "drivers//x", "a/b c", "a/$(id)"] {
            assert!(wrong.parse::<TreeModule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_wins_over_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.config");
        std::fs::write(&file, "CONFIG_A=y\nCONFIG_B=y").unwrap();
        let kernel_options = vec!["B=n".parse().unwrap(), "C=m".parse().unwrap()];
        let options = Options { kernel_fragments: vec![file], kernel_options, ..Options::default() };
        assert_eq!(fragment(&options).unwrap().text(), "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\n");
    }
}
