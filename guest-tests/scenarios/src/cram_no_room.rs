//! The tier is to be removed, but there is no room elsewhere for its pages.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_no_room",
    story: "driver unbound, module unloaded, function removed while DRAM is full: the tier stays, whole, until there is room",
    needs: &[Need::Cram, Need::Config("MEMORY_HOTREMOVE")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 32 << 20, ..DeviceShape::USUAL }],
    machine: MachineShape { memory_mib: 384, ..MachineShape::USUAL },
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
/// Bytes left free in DRAM, too few for the tier's pages.
const LEFT: u64 = 24 * MIB;
const LIMIT: Duration = Duration::from_secs(60);
const DATA: Pattern = Pattern::Compressible { seed: 98, ratio: 3.0 };
const BULK: Pattern = Pattern::Same { word: 0x5a5a };

fn run(lab: &mut Lab) -> Result<()> {
    // A processor keeps freed pages on its own lists, 20 MiB here, and the OOM killer runs before they are drained.
    lab.guest.write_file("/proc/sys/vm/percpu_pagelist_high_fraction", "1000")?;
    let mut cram = lab.cram()?;
    let function = lab.function(0)?;
    let mut memory = lab.guest.memory()?;
    let (data, bulk) = (memory.map_anywhere(8 * MIB)?, memory.map_huge(40 * MIB, LIMIT)?);
    memory.fill(data.all(), &DATA, LIMIT)?;
    memory.fill(bulk.all(), &BULK, LIMIT)?;
    let check = |memory: &mut Memory| -> Result<u64> {
        let mut verdict = memory.verify(data.all(), &DATA, LIMIT)?;
        verdict.add(memory.verify(bulk.all(), &BULK, LIMIT)?);
        Ok(verdict.pages_wrong + verdict.pages_poisoned)
    };

    for (what, away) in [
        ("unbound", cram.unbind_line()),
        ("unloaded", format!("rmmod {}", cram.module())),
        ("removed", format!("echo 1 > /sys/bus/pci/devices/{function}/remove")),
    ] {
        lab.step(&format!("{what}: the tier holds more than DRAM can take"));
        for map in [&bulk, &data] {
            memory.move_pages(map.all(), &[cram.node], LIMIT)?;
        }
        let there = memory.nodes(data.all())?.on(cram.node) + memory.nodes(bulk.all())?.on(cram.node);
        let mut hog = lab.guest.memory()?;
        let hogged = hog.map_anywhere((lab.free_bytes(0)? - LEFT) / MIB * MIB)?;
        hog.fill(hogged.all(), &BULK, LIMIT)?;

        lab.step(&format!("{what}: the driver is to be removed"));
        // Unloading waits until there is room, so run it in the background.
        let begin = Instant::now();
        lab.sh(&format!("dmesg -c > /dev/null; ({away}; echo $? > /{what}) > /dev/null 2>&1 &"))?;
        let grep = "dmesg | grep -o 'memory[^:]*in use[^:]*' | uniq";
        lab.wait("the kernel to log that the memory is in use", |lab| lab.holds(&format!("{grep} | grep -q .")))?;
        if what != "unloaded" {
            lab.guest.wait_path(&format!("/{what}"), LIMIT)?;
        }
        lab.figure(&format!("{what}: reported after"), format!("{:.1?}", begin.elapsed()));
        let messages = lab.sh(grep)?;
        let kept = memory.nodes(data.all())?.on(cram.node) + memory.nodes(bulk.all())?.on(cram.node);
        let wrong = check(&mut memory)?;
        // Programs go on: pages that they write are promoted while there is room.
        memory.fill(data.pages(0, MIB / 4096), &DATA, LIMIT)?;
        let promoted = memory.nodes(data.pages(0, MIB / 4096))?.on(0);
        let alive = hog.verify(hogged.all(), &BULK, LIMIT)?.pages_wrong == 0;

        lab.fact(
            what,
            json!({
                "pages on the tier": there,
                "the kernel says": messages.lines().collect::<Vec<_>>(),
                "of these, pages on the tier then": kept,
                "pages wrong then": wrong,
                "of 256 pages written there, promoted": promoted,
                "nobody was killed": alive,
            }),
        );

        lab.step(&format!("{what}: there is room"));
        drop(hog);
        let private = || lab.guest.read_text("/sys/devices/system/node/has_memory_private");
        let regions = |lab: &Lab| -> Result<usize> { Ok(lab.cxl("list -R")?.as_array().map_or(0, Vec::len)) };
        if what != "removed" {
            // A new attempt removes the memory first, and the region a moment later.
            lab.wait("the tier and its region to go", |lab| Ok(private()?.trim().is_empty() && regions(lab)? == 0))?;
            lab.guest.wait_path(&format!("/{what}"), LIMIT)?;
        }
        let (nodes, regions) = (private()?, regions(lab)?);
        lab.fact(
            &format!("{what}: when there is room"),
            json!({
                "nodes with private memory": nodes,
                "regions": regions,
                "exit code": lab.guest.read_text(&format!("/{what}"))?.trim(),
                "pages wrong": check(&mut memory)?,
            }),
        );
        match what {
            "unbound" => {
                lab.sh(&cram.bind_line())?;
                cram = lab.cram_of(0)?;
            }
            "unloaded" => cram = lab.cram()?,
            // The function is gone, so nothing can try again.
            _ => {}
        }
    }
    Ok(())
}
