//! Makes the catalog: every file of `guest-tests/scenarios` is a module with a `SCENARIO`, so that adding a scenario
//! is adding a file.

use std::{env, error::Error, fmt::Write, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let folder = manifest.join("../guest-tests/scenarios").canonicalize()?;
    println!("cargo::rerun-if-changed={}", folder.display());

    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.push(path.file_stem().ok_or("a file without a name")?.to_string_lossy().into_owned());
        }
    }
    names.sort();

    let mut modules = String::new();
    for name in &names {
        let path = folder.join(format!("{name}.rs"));
        writeln!(modules, "#[path = {path:?}]\n#[allow(missing_docs)]\npub mod {name};")?;
    }
    let items: Vec<_> = names.iter().map(|name| format!("&{name}::SCENARIO")).collect();
    writeln!(
        modules,
        "/// Every scenario, by file name.\npub const CATALOG: &[&super::Scenario] = &[{}];",
        items.join(", ")
    )?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("catalog.rs"), modules)?;
    Ok(())
}
