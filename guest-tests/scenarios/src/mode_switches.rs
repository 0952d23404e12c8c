//! Memory that comes online automatically, as distributions configure it, is switched to a device file and back.

use std::collections::BTreeSet;

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "mode_switches",
    story: "memory that comes online by itself, with data on it, becomes a device file and a node's memory again, 20 times",
    needs: &[
        Need::Config("DEV_DAX"),
        Need::Config("DEV_DAX_KMEM"),
        Need::Config("MEMORY_HOTREMOVE"),
        Need::Config("CPUSETS"),
    ],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, ..DeviceShape::USUAL }],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const BYTES: u64 = 8 * MIB;
const PAGES: u64 = BYTES / 4096;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 51, ratio: 3.0 };

/// The policies by which distributions bring memory online, and the rounds with each.
const POLICIES: [(&str, u32); 3] = [("online_movable", 10), ("online", 5), ("online_kernel", 5)];

fn run(lab: &mut Lab) -> Result<()> {
    auto_online(lab, POLICIES[0].0)?;
    let region = lab.create_region_on(0)?;
    wait_online(lab, &region)?;
    for (policy, rounds) in POLICIES {
        lab.step(&format!("{policy}: {rounds} times a device file and a node's memory again"));
        auto_online(lab, policy)?;
        let mut seen = Seen::default();
        for _ in 0..rounds {
            switch(lab, &region, &mut seen)?;
        }
        if policy == POLICIES[0].0 {
            ensure!(seen.switched == rounds, "{policy}: switched {} times of {rounds}", seen.switched);
            lab.fact(policy, &seen.facts);
            lab.fact(&format!("{policy}.without --force"), &seen.without_force);
        } else {
            // The kernel's own pages on a node may prevent every switch, which is not a fault. A switch itself is the same.
            let usual = [format!("pages that left the node: {PAGES}"), "pages wrong: 0".into(), "zones: Normal".into()];
            let other: Vec<_> = seen.facts.iter().filter(|fact| !usual.contains(fact)).collect();
            lab.fact(&format!("{policy}.other than usual"), other);
        }
        lab.figure(&format!("{policy} switched"), format!("{} of {rounds}", seen.switched));
    }

    lab.step("the kernel uses it: page tables of a program confined to the node cannot move");
    let _program = lab.program_confined_to(region.node)?;
    let refusal = lab.refused(&format!("daxctl reconfigure-device --mode=devdax --force {}", region.dax))?;
    lab.fact("while the kernel uses it", normalised(&refusal));
    lab.fact("and it stays", pick(&lab.json("daxctl list -D")?, &["mode", "target_node"]));
    Ok(())
}

/// What all rounds with a policy have in common.
#[derive(Default)]
struct Seen {
    switched: u32,
    facts: BTreeSet<String>,
    without_force: Vec<String>,
}

/// One round: data on the node, a device file, a node's memory. Memory is online before and after.
fn switch(lab: &Lab, region: &Region, seen: &mut Seen) -> Result<()> {
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(region.node, BYTES, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let ran = lab.guest.run(&["daxctl", "reconfigure-device", "--mode=devdax", "--force", &region.dax], LIMIT)?;
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    seen.facts.insert(format!("pages wrong: {}", verdict.pages_wrong));
    if !ran.exit.success() {
        let error = ran.stderr.text();
        ensure!(error.contains("Device or resource busy"), "daxctl refused for another reason: {error}");
        // Some of it may be offline already.
        lab.sh(&format!("cxl-cram-guest online-node --node {} --policy online", region.node))?;
        return Ok(());
    }
    seen.switched += 1;
    seen.facts.insert(format!("pages that left the node: {}", memory.nodes(map.all())?.on(0)));
    drop(memory);

    let back = format!("daxctl reconfigure-device --mode=system-ram --no-online {}", region.dax);
    if seen.without_force.is_empty() {
        seen.without_force = lab.refused(&back)?.lines().map(str::to_owned).collect();
    }
    lab.json(&format!("{back} --force"))?;
    wait_online(lab, region)?;
    let zones = lab.sh(&format!("sort -u /sys/devices/system/node/node{}/memory*/valid_zones", region.node))?;
    seen.facts.insert(format!("zones: {}", zones.trim()));
    Ok(())
}

/// Sets how plugged memory comes online.
fn auto_online(lab: &Lab, policy: &str) -> Result<()> {
    Ok(lab.guest.write_file("/sys/devices/system/memory/auto_online_blocks", policy)?)
}

/// Waits until all blocks of the region exist and are online.
fn wait_online(lab: &Lab, region: &Region) -> Result<()> {
    let states = format!("/sys/devices/system/node/node{}/memory*/state", region.node);
    let blocks = format!("$(({} / 0x$(cat /sys/devices/system/memory/block_size_bytes)))", region.size);
    let online = format!("test $(cat {states} | grep -cx online) = {blocks}");
    lab.wait("the memory to be online", |lab| lab.holds(&online))
}

/// The lines, with a placeholder for the number of the first block that is refused.
fn normalised(text: &str) -> Vec<String> {
    let word = |word| if str::ends_with(word, "/state:") { "<block>:" } else { word };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}
