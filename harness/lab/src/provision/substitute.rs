//! Records which packages replace a pin that the archive no longer has, so that the next run needs no network for it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::cache::{Cache, Key, Product, Scratch};
use super::error::{IoContext, ProvisionError};
use super::pins::{Pin, records};

/// The recorded substitutes for a product, and the age of the record.
pub(super) fn read(cache: &Cache, product: Product, asked: &Key) -> Option<(Vec<Pin>, Duration)> {
    let file = cache.root().join(Scratch::Substitutes.name()).join(name(product, asked));
    let text = fs::read_to_string(&file).ok()?;
    let age = fs::metadata(&file).and_then(|file| file.modified()).ok()?.elapsed().unwrap_or_default();
    let pins = text.lines().map(Pin::from_record).collect::<Option<Vec<_>>>().filter(|pins| !pins.is_empty())?;
    Some((pins, age))
}

/// Records substitutes for a product.
pub(super) fn write(cache: &Cache, product: Product, asked: &Key, pins: &[Pin]) -> Result<(), ProvisionError> {
    let file: PathBuf = cache.scratch(Scratch::Substitutes)?.join(name(product, asked));
    fs::write(&file, records(pins)).context("write", file)
}

fn name(product: Product, asked: &Key) -> String {
    format!("{}-{asked}", product.name())
}
