//! The guest loads poison, a machine check reports the address, and the kernel loses that page and nothing else.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "machine_check",
    story: "loading poison raises a machine check: SIGBUS with the address, or a clean page is read again; all else lives",
    needs: &[
        Need::Config("MEMORY_FAILURE"),
        Need::Config("X86_MCE_INTEL"),
        Need::Config("EXT4_FS"),
        Need::Path("/proc/kpageflags"),
    ],
    // No read-ahead: only the touched page is loaded.
    devices: &[DeviceShape { more: &["--readahead", "4096"], ..DeviceShape::USUAL }],
    machine: MachineShape { corpus: true, scratch_mib: Some(16), machine_checks: true, ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Random { seed: 11 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;

    lab.step("a program loads poison: SIGBUS when it touches the page again");
    let mut late = lab.guest.memory()?;
    late.guard(false)?;
    let map = late.map_on(1, MIB, LIMIT)?;
    late.fill(map.all(), &DATA, LIMIT)?;
    let frame = poison(lab, &mut late, &map, 5)?;
    late.touch(map.pages(5, 1), false, 1, LIMIT)?;
    corrupted(lab, 1)?;
    late.touch(map.pages(5, 1), false, 1, LIMIT)?;
    lab.fact("anonymous memory", faults(&mut late, &map)?);
    lab.fact("the kernel on its page", recovery(lab, frame)?);
    lab.fact("the page is marked", hwpoison(lab, frame)?);

    lab.step("a program that asks for early notice gets SIGBUS before it touches the page again");
    let mut early = lab.guest.memory()?;
    early.guard(true)?;
    let other = early.map_on(1, MIB, LIMIT)?;
    early.fill(other.all(), &DATA, LIMIT)?;
    let frame = poison(lab, &mut early, &other, 7)?;
    early.touch(other.pages(7, 1), false, 1, LIMIT)?;
    corrupted(lab, 2)?;
    lab.fact("told early", faults(&mut early, &other)?);
    lab.fact("the kernel on that page", recovery(lab, frame)?);

    lab.step("a clean page of the page cache is read from the disk again");
    lab.sh("mke2fs -b 4096 /dev/vdb && mount -t ext2 /dev/vdb /mnt && dd if=/dev/vda of=/mnt/file bs=1M count=1 && \
        sync && echo 1 > /proc/sys/vm/drop_caches")?;
    let mut reader = lab.guest.memory()?;
    reader.guard(false)?;
    let file = reader.map_cached("/mnt/file", MIB, 1, LIMIT)?;
    lab.fact("cached pages by node", reader.nodes(file.all())?.nodes);
    let frame = poison(lab, &mut reader, &file, 9)?;
    reader.touch(file.pages(9, 1), false, 1, LIMIT)?;
    corrupted(lab, 3)?;
    let corpus = Pattern::File { path: "/dev/vda".into(), offset: 0 };
    let verdict = reader.verify(file.all(), &corpus, LIMIT)?;
    lab.fact("pages of the file that differ from the disk", verdict.pages_wrong + verdict.pages_poisoned);
    lab.fact("signals to its reader", faults(&mut reader, &file)?);
    lab.fact("the kernel on the cached page", recovery(lab, frame)?);

    lab.step("nothing else was touched");
    for (what, memory, map, lost) in [("first", &mut late, &map, 5), ("second", &mut early, &other, 7)] {
        let mut wrong = memory.verify(map.pages(0, lost), &DATA, LIMIT)?;
        wrong.add(memory.verify(map.pages(lost + 1, map.page_count() - lost - 1), &DATA, LIMIT)?);
        lab.fact(&format!("pages wrong or poisoned beside the {what} loss"), wrong.pages_wrong + wrong.pages_poisoned);
    }
    Ok(())
}

/// Poisons a line in the middle of a page, which the window drops. Returns the address of its frame.
fn poison(lab: &Lab, memory: &mut Memory, map: &Mapping, page: u64) -> Result<u64> {
    let frame = memory.physical(map, page, 1)?[0].context("the page is not present")?;
    lab.device().execute(control::InjectPoison { start: lab.dpa(0, frame)? + 2048, length: 64 })?;
    Ok(frame)
}

/// Waits until the kernel counts this many pages as lost.
fn corrupted(lab: &Lab, pages: u64) -> Result<()> {
    let counted = format!("grep -q '^HardwareCorrupted: *{} kB' /proc/meminfo", pages * 4);
    lab.wait("the kernel to count the page as corrupted", |lab| lab.holds(&counted))
}

/// Each SIGBUS of a program: the action required, and which page of the mapping the address is in.
fn faults(memory: &mut Memory, map: &Mapping) -> Result<Vec<Value>> {
    let fault = |fault: Fault| {
        json!({
            "action": fault.action, "page": (fault.address.wrapping_sub(map.address)) / 4096, "low bits": fault.low_bits,
        })
    };
    Ok(memory.faults()?.into_iter().map(fault).collect())
}

/// What the kernel did about a frame, from its log.
fn recovery(lab: &Lab, frame: u64) -> Result<String> {
    let line = lab.sh(&format!("dmesg | grep -o 'Memory failure: {:#x}: recovery action.*'", frame / 4096))?;
    Ok(line.trim().rsplit_once("recovery action ").context("no recovery action")?.1.to_owned())
}

/// Whether a frame has the flag HWPOISON (Documentation/admin-guide/mm/pagemap.rst, bit 19).
fn hwpoison(lab: &Lab, frame: u64) -> Result<bool> {
    let read =
        lab.sh(&format!("dd if=/proc/kpageflags bs=8 skip={} count=1 2>/dev/null | od -An -tx8", frame / 4096))?;
    Ok(u64::from_str_radix(read.trim(), 16)? & 1 << 19 != 0)
}
