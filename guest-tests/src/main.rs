//! `cxl-cram-guest`: the agent and the test programs.

fn main() {}
