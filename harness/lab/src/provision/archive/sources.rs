//! Builds the sources.list: from the Debian mirror in the machine's own configuration, or from a user's file.
//!
//! Packages come from one fixed release, whatever the host runs. No host name is written down here.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{BACKPORTS, RELEASE};
use crate::process::run::query;
use crate::provision::error::ProvisionError;
use crate::provision::pins::read_small;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Our sources list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources(String);

impl Sources {
    /// The user's own lines. apt checks them.
    pub(super) fn of_file(file: &Path) -> Result<Sources, ProvisionError> {
        Ok(Sources(read_small(file)?))
    }

    /// The lines for the archive in this machine's apt configuration. The error is what the machine lacks.
    pub(super) fn of_this_machine() -> Result<Sources, &'static str> {
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", TARGET_FORMAT]);
        let targets = query(&mut apt).ok_or("there is no apt-get")?;
        let mirror = mirror(&targets).or_else(|| {
            // If lists were never downloaded, there is no release information, only the configured lines.
            let codename = debian_codename(&fs::read_to_string("/etc/os-release").ok()?)?;
            let mut apt = Command::new("apt-get");
            apt.args(["indextargets", "--no-release-info", "--format", TARGET_FORMAT]);
            configured_mirror(&query(&mut apt)?, &codename)
        });
        let mirror = mirror.ok_or("apt is not configured with a Debian mirror")?;
        if !Path::new(KEYRING).exists() {
            return Err("the package debian-archive-keyring is not installed");
        }
        Ok(mirror.sources())
    }

    /// Whether a line names this suite.
    pub(super) fn has(&self, suite: &str) -> bool {
        self.0.lines().any(|line| line.split_whitespace().any(|word| word == suite))
    }

    /// The content of the sources.list.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

/// The Debian mirror in a machine's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    /// The main archive, as apt writes its site.
    main: String,
    /// The security archive, if the machine uses it.
    security: Option<String>,
}

impl Mirror {
    fn sources(&self) -> Sources {
        let options = format!("[arch=amd64 signed-by={KEYRING}]");
        let mut text = String::new();
        for suite in [RELEASE, BACKPORTS] {
            text += &format!("deb {options} {} {suite} main\n", self.main);
        }
        if let Some(security) = &self.security {
            text += &format!("deb {options} {security} {RELEASE}-security main\n");
        }
        Sources(text)
    }
}

/// The format for [`mirror`] and [`configured_mirror`]: one index target a line.
const TARGET_FORMAT: &str = "$(SITE)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|$(LABEL)";

struct Target<'a> {
    site: &'a str,
    release: &'a str,
    component: &'a str,
    origin: &'a str,
    label: &'a str,
}

fn targets(text: &str) -> impl Iterator<Item = Target<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split('|');
        Some(Target {
            site: fields.next().filter(|site| is_site(site))?,
            release: fields.next()?,
            component: fields.next()?,
            origin: fields.next()?,
            label: fields.next()?,
        })
    })
}

/// Whether the site cannot add words to a line of our sources.list.
fn is_site(site: &str) -> bool {
    site.contains(":/") && !site.contains(|c: char| c.is_whitespace() || c.is_control() || "[]#".contains(c))
}

/// The mirror, from the machine's signed release files.
fn mirror(text: &str) -> Option<Mirror> {
    let site = |label| {
        let mut found = targets(text).filter(|t| t.origin == "Debian" && t.label == label && t.component == "main");
        found.next().map(|target| target.site.to_owned())
    };
    Some(Mirror { main: site("Debian")?, security: site("Debian-Security") })
}

/// The mirror, from the configured lines alone, on a Debian release with this codename.
fn configured_mirror(text: &str, codename: &str) -> Option<Mirror> {
    let site = |releases: &[&str]| {
        let mut found = targets(text).filter(|t| releases.contains(&t.release) && t.component == "main");
        found.next().map(|target| target.site.to_owned())
    };
    let security = format!("{codename}-security");
    Some(Mirror {
        main: site(&[codename, "oldstable", "stable", "testing"])?,
        security: site(&[&security, "oldstable-security", "stable-security", "testing-security"]),
    })
}

/// The release's name from os-release, if the machine runs Debian itself.
fn debian_codename(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        os_release
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.trim_matches('"').to_owned()))
    };
    field("ID").filter(|id| id == "debian")?;
    field("VERSION_CODENAME")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWNLOADED: &str = "\
https://packages.example.org/apt|bookworm|main|Example|Debian
http://security.example.net/debian-security|bookworm-security|main|Debian|Debian-Security
http://mirror.example.net/debian|bookworm|contrib|Debian|Debian
http://mirror.example.net/debian|bookworm|main|Debian|Debian
http://mirror.example.net/debian|bookworm-backports|main|Debian Backports|Debian Backports
";

    #[test]
    fn the_mirror_is_the_one_whose_release_file_says_debian() {
        let mirror = mirror(DOWNLOADED).unwrap();
        assert_eq!(mirror.main, "http://mirror.example.net/debian");
        assert_eq!(mirror.security.as_deref(), Some("http://security.example.net/debian-security"));
    }

    #[test]
    fn a_machine_of_another_distribution_has_no_debian_mirror() {
        assert_eq!(mirror("http://archive.example.com/ubuntu|noble|main|Ubuntu|Ubuntu\n"), None);
        assert_eq!(mirror(""), None);
        assert_eq!(debian_codename("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"), None);
    }

    #[test]
    fn without_release_files_the_mirror_comes_from_the_configured_lines() {
        let text = DOWNLOADED
            .lines()
            .skip(1)
            .map(|line| line.rsplitn(3, '|').last().unwrap().to_owned() + "|$(ORIGIN)|$(LABEL)\n");
        let codename = debian_codename("VERSION_CODENAME=bookworm\nID=debian\n").unwrap();
        let mirror = configured_mirror(&text.collect::<String>(), &codename).unwrap();
        assert_eq!(mirror.main, "http://mirror.example.net/debian");
        assert_eq!(mirror.security.as_deref(), Some("http://security.example.net/debian-security"));
    }

    #[test]
    fn a_site_cannot_smuggle_words_into_the_sources_list() {
        assert_eq!(mirror("http://x.example [trusted=yes] y|bookworm|main|Debian|Debian\n"), None);
        assert_eq!(mirror("trusted|bookworm|main|Debian|Debian\n"), None);
    }

    #[test]
    fn the_sources_list_names_the_keyring_on_every_line() {
        let sources = mirror(DOWNLOADED).unwrap().sources();
        assert_eq!(sources.text().lines().count(), 3);
        assert!(sources.text().lines().all(|line| line.contains("signed-by=") && line.ends_with(" main")));
    }
}
