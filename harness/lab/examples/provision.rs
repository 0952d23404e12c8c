//! Runs provisioning alone and says what came out: `cargo run -p cxl-cram-lab --example provision [CACHE-FOLDER]`.

use cxl_cram_lab::provision::{Options, Progress, provision};

fn main() -> anyhow::Result<()> {
    let options = Options { cache_dir: std::env::args_os().nth(1).map(Into::into), ..Options::default() };
    let start = std::time::Instant::now();
    let provisioned = provision(&options, &Progress::stderr())?;
    println!("{provisioned:#?}\n{} ms", start.elapsed().as_millis());
    Ok(())
}
