//! `cxl-cram-harness`.

fn main() {}
