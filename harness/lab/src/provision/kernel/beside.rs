//! Finds the configuration of a built kernel where distributions and build trees have it.

use std::path::{Path, PathBuf};

/// The largest configuration read, in bytes; Debian's have 300 KiB.
pub(super) const MOST_BYTES: u64 = 4 << 20;

/// The configuration of an image of this release, if it is in one of the usual places: beside the image (`config-RELEASE`,
/// `config`), at the top of the build tree of an image, or with the modules.
pub(super) fn config(image: &Path, modules: Option<&Path>, release: &str) -> Option<PathBuf> {
    let beside = [format!("config-{release}"), "config".into()].map(|name| image.with_file_name(name));
    let tree = image.ends_with(super::build::IMAGE).then(|| image.ancestors().nth(4)).flatten();
    let with_modules = modules.map(|folder| ["config", "build/.config", ".config"].map(|name| folder.join(name)));
    let places = beside.into_iter().chain(tree.map(|tree| tree.join(".config")));
    let is_config = |place: &PathBuf| place.metadata().is_ok_and(|file| file.is_file() && file.len() <= MOST_BYTES);
    places.chain(with_modules.into_iter().flatten()).find(is_config)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_configuration_is_found_beside_the_image_in_its_tree_and_with_its_modules() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str| {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), "CONFIG_X=y\n").unwrap();
        };
        let (boot, tree) = (path("boot/vmlinuz-7.3.4"), path("tree/arch/x86/boot/bzImage"));
        assert_eq!(config(&boot, Some(&path("modules")), "7.3.4"), None);
        write("modules/build/.config");
        assert_eq!(config(&boot, Some(&path("modules")), "7.3.4"), Some(path("modules/build/.config")));
        write("modules/config");
        assert_eq!(config(&boot, Some(&path("modules")), "7.3.4"), Some(path("modules/config")));
        write("boot/config-7.3.4");
        assert_eq!(config(&boot, Some(&path("modules")), "7.3.4"), Some(path("boot/config-7.3.4")));
        assert_eq!(config(&boot, None, "6.12"), None, "another release's");
        write("tree/.config");
        assert_eq!(config(&tree, None, ""), Some(path("tree/.config")));
    }
}
