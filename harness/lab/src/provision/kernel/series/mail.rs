//! A patch as `git format-patch` writes it: its message, and what it does to each file.

use std::fmt;

/// The line between the message and the rest.
const END_OF_MESSAGE: &str = "---";
/// The first words of what it does to a file.
const FILE: &str = "diff --git ";
/// Before the version of the git that made the patch.
const SIGNATURE: &str = "\n-- \n";

/// A patch. Without the statistics that git puts below the message, which git ignores when it reads one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mail {
    /// The header and the commit's message, down to the line `---`, without it.
    pub(super) message: String,
    /// What it does to the files, in the order of their names.
    pub(super) sections: Vec<Section>,
}

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// The file, relative to the tree.
    pub(super) path: String,
    /// From `diff --git` to the end of the last hunk.
    pub(super) text: String,
}

impl Section {
    /// Whether it creates the file.
    pub(super) fn creates(&self) -> bool {
        self.text.lines().take_while(|line| !line.starts_with("@@ ")).any(|line| line.starts_with("new file mode "))
    }
}

impl Mail {
    /// Reads a patch, or the part of one that has no message. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Mail, String> {
        let mut mail = Mail { message: String::new(), sections: Vec::new() };
        let mut in_message = true;
        for line in without_signature(text).split_inclusive('\n') {
            if let Some(paths) = line.strip_prefix(FILE) {
                let path = paths.trim_end().rsplit_once(" b/").map(|(_, path)| path.to_owned());
                let path = path.ok_or_else(|| format!("{:?} names no file", line.trim_end()))?;
                mail.sections.push(Section { path, text: line.to_owned() });
                continue;
            }
            match mail.sections.last_mut() {
                Some(section) => section.text.push_str(line),
                None if line.trim_end() == END_OF_MESSAGE => in_message = false,
                None if in_message => mail.message.push_str(line),
                None => {}
            }
        }
        for Section { text, .. } in &mut mail.sections {
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        mail.sections.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(mail)
    }

    /// Number of lines that it adds or removes.
    pub(super) fn lines(&self) -> usize {
        let changed = |line: &&str| {
            let header = line.starts_with("--- ") || line.starts_with("+++ ");
            !header && (line.starts_with('+') || line.starts_with('-'))
        };
        self.sections.iter().map(|section| section.text.lines().filter(changed).count()).sum()
    }
}

/// A patch without its last lines, if these are a signature: a hunk, too, may have a line that looks like its beginning.
fn without_signature(text: &str) -> &str {
    match text.rsplit_once(SIGNATURE) {
        Some((patch, signature)) if signature.trim_end().lines().count() <= 1 => patch,
        _ => text,
    }
}

/// As `git am` takes it; without a message, as `git apply` does.
impl fmt::Display for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.message.is_empty() {
            writeln!(f, "{}\n{END_OF_MESSAGE}\n", self.message.trim_end())?;
        }
        self.sections.iter().try_for_each(|section| f.write_str(&section.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "From 00 Mon Sep 17 00:00:00 2001\nFrom: A <a@example>\nSubject: [PATCH] mm: do\n\nWhy.\n---\n \
        mm/b.c | 1 +\n 1 file changed\n\ndiff --git a/mm/b.c b/mm/b.c\nnew file mode 100644\n--- /dev/null\n+++ b/mm/b.c\n\
        @@ -0,0 +1 @@\n+b\ndiff --git a/mm/a.c b/mm/a.c\n--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1 +1 @@\n-a\n+new file mode 1\n-- \n2.4\n\n";

    #[test]
    fn a_patch_is_its_message_and_a_section_for_each_file_by_name() {
        let mail = Mail::parse(PATCH).unwrap();
        assert_eq!(
            mail.message,
            "From 00 Mon Sep 17 00:00:00 2001\nFrom: A <a@example>\nSubject: [PATCH] mm: do\n\nWhy.\n"
        );
        let files: Vec<_> = mail.sections.iter().map(|section| (section.path.as_str(), section.creates())).collect();
        assert_eq!(files, [("mm/a.c", false), ("mm/b.c", true)]);
        assert_eq!(mail.lines(), 3);
    }

    #[test]
    fn what_is_written_reads_as_the_same() {
        let mail = Mail::parse(PATCH).unwrap();
        assert_eq!(Mail::parse(&mail.to_string()).unwrap(), mail);
        let diff = Mail { message: String::new(), ..mail };
        assert!(diff.to_string().starts_with("diff --git a/mm/a.c"));
        assert_eq!(Mail::parse(&diff.to_string()).unwrap(), diff);
    }

    #[test]
    fn a_line_that_names_no_file_is_an_error() {
        assert_eq!(Mail::parse("diff --git whatever\n").unwrap_err(), "\"diff --git whatever\" names no file");
    }
}
