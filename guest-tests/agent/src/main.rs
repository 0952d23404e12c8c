//! `cxl-cram-guest`: the guest's init, its agent, and the test programs.
//!
//! As process 1, it is init, whatever its arguments.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use cxl_cram_guest::{agent, cxl_raw, hot_cost, memory, node};
use serde::Serialize;

/// The guest side of cxl-cram. Every program prints JSON.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand)]
enum Program {
    /// Serves the harness over the virtio-serial port. Started by init.
    Agent,
    /// Holds memory on a node, and fills and verifies it: JSON orders on standard input, answers on standard output.
    ///
    /// For example:
    ///   {"id":1,"task":"map","bytes":16777216,"node":1,"populate":true}
    ///   {"id":2,"task":"fill","range":{"map":1},"pattern":"random","seed":7}
    ///   {"id":3,"task":"verify","range":{"map":1},"pattern":"random","seed":7}
    #[command(verbatim_doc_comment)]
    Memory,
    /// Measures filling and verifying hot memory on a node and on node 0, in nanoseconds per page of 4096 bytes.
    HotCost {
        /// The node to compare with node 0.
        #[arg(long, default_value_t = 1)]
        node: u32,
        /// Memory to map on each node.
        #[arg(long, default_value_t = 32 << 20)]
        bytes: usize,
        /// Counted rounds; one more warms up.
        #[arg(long, default_value_t = 9)]
        rounds: u32,
    },
    /// Sends a mailbox command and prints the return code and the output payload.
    CxlRaw {
        /// The memory device.
        #[arg(long, default_value = "mem0")]
        memdev: String,
        /// The opcode, for example 0x4402.
        #[arg(long, value_parser = opcode)]
        opcode: u16,
        /// The input payload.
        #[arg(long, default_value = "")]
        payload_hex: String,
        /// Size of the output buffer, in bytes.
        #[arg(long, default_value_t = 512)]
        output_bytes: usize,
        /// Also allow opcodes that the kernel reserves for itself (needs debugfs).
        #[arg(long)]
        allow_all: bool,
    },
    /// Onlines every memory block of a node.
    OnlineNode {
        /// The node.
        #[arg(long)]
        node: u32,
        /// The zone to online it to.
        #[arg(long, value_enum, default_value_t = Policy::OnlineMovable)]
        policy: Policy,
    },
    /// Offlines every memory block of a node.
    OfflineNode {
        /// The node.
        #[arg(long)]
        node: u32,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Policy {
    #[value(name = "online_movable")]
    OnlineMovable,
    #[value(name = "online_kernel")]
    OnlineKernel,
    #[value(name = "online")]
    Online,
}

impl Policy {
    fn state(self) -> &'static str {
        match self {
            Self::OnlineMovable => "online_movable",
            Self::OnlineKernel => "online_kernel",
            Self::Online => "online",
        }
    }
}

fn opcode(text: &str) -> Result<u16, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

fn main() -> ExitCode {
    let result =
        if std::process::id() == 1 { agent::init().map(|_| true).context("init") } else { run(Arguments::parse()) };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cxl-cram-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a program; returns whether its result is success.
fn run(arguments: Arguments) -> anyhow::Result<bool> {
    match arguments.program {
        Program::Agent => agent::agent().context("the agent")?,
        Program::Memory => memory::serve(io::stdin().lock(), io::stdout().lock()).context("the memory program")?,
        Program::HotCost { node, bytes, rounds } => {
            let costs = hot_cost::measure(&[0, node], bytes, rounds).context("cannot measure hot memory")?;
            print(&costs)?;
            return Ok(costs.iter().all(|cost| cost.wrong_words == 0));
        }
        Program::CxlRaw { memdev, opcode, payload_hex, output_bytes, allow_all } => {
            let answer = cxl_raw::send(&memdev, opcode, &payload_hex, output_bytes, allow_all)
                .with_context(|| format!("cannot send {opcode:#06x} to {memdev}"))?;
            print(&answer)?;
        }
        Program::OnlineNode { node, policy } => return set_node(node, policy.state()),
        Program::OfflineNode { node } => return set_node(node, "offline"),
    }
    Ok(true)
}

fn set_node(node: u32, state: &str) -> anyhow::Result<bool> {
    let blocks = node::set(node, state).with_context(|| format!("cannot set the blocks of node {node} {state}"))?;
    print(&blocks)?;
    Ok(blocks.failed.is_empty())
}

fn print(value: &impl Serialize) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    serde_json::to_writer(&mut output, value)?;
    Ok(output.write_all(b"\n")?)
}
