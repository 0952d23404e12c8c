//! Removing data: Zero and Sanitize of ranges by raw mailbox command, Sanitize of everything by the kernel.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "media_operations",
    story: "ranges zeroed under a program read zero, the rest verifies; the kernel sanitizes only what is not in use",
    needs: &[Need::Config("CXL_MEM_RAW_COMMANDS"), Need::Path("/sys/bus/cxl/devices/mem0/security/sanitize")],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const NOISE: Pattern = Pattern::Random { seed: 7 };
const SANITIZE: &str = "/sys/bus/cxl/devices/mem0/security/sanitize";

/// Media operations (4402h): class and subclass.
const DISCOVERY: [u8; 2] = [0, 0];
const SANITIZE_RANGES: [u8; 2] = [1, 0];
const ZERO: [u8; 2] = [1, 1];

fn run(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(1, 16 * MIB, LIMIT)?;
    memory.fill(map.all(), &NOISE, LIMIT)?;
    let frames = memory.physical(&map, 0, map.page_count())?;
    let dpas = frames.iter().flatten().map(|&frame| lab.dpa(0, frame)).collect::<Result<Vec<_>>>()?;
    ensure!(dpas.len() as u64 == map.page_count(), "pages are missing");
    let full = lab.device().status()?;

    lab.step("Zero and Sanitize of pages that a program holds");
    for (operation, first) in [(ZERO, 0), (SANITIZE_RANGES, 64)] {
        let ranges: Vec<_> = dpas[first..first + 64].iter().map(|&dpa| (dpa, 4096)).collect();
        let code = lab.media_operation(operation, &ranges)?;
        ensure!(code <= 1, "media operation {operation:?} returned {code:#x}");
    }
    // The device is no longer busy: both are done.
    lab.fact("no range: done at once", lab.media_operation(ZERO, &[])?);
    let gone = memory.verify(map.pages(0, 128), &Pattern::Zero, LIMIT)?;
    lab.fact("pages that are not zero", gone.pages_wrong + gone.pages_poisoned);
    let rest = memory.verify(map.pages(128, map.page_count() - 128), &NOISE, LIMIT)?;
    lab.fact("other pages that changed", rest.pages_wrong + rest.pages_poisoned);
    lab.fact("compressed bytes that are gone", full.data - lab.device().status()?.data);

    lab.step("refused: a partial block, beyond the capacity, an unknown operation");
    let capacity = full.capacity;
    for (why, operation, range) in [
        ("half a block", ZERO, (2048, 2048)),
        ("beyond the capacity", ZERO, (capacity - 4096, 8192)),
        ("nothing", SANITIZE_RANGES, (0, 0)),
        ("class 2", [2, 0], (0, 4096)),
        ("Discovery with a range", DISCOVERY, (0, 4096)),
    ] {
        lab.fact(why, format!("{:#04x}", lab.media_operation(operation, &[range])?));
    }

    lab.step("the kernel does not sanitize memory that is mapped");
    lab.fact("security state", state(lab)?);
    lab.fact("sanitize with a region", lab.refused(&format!("echo 1 > {SANITIZE}"))?);

    lab.step("once nothing is mapped, it does, and the media is empty");
    memory.free(map)?;
    lab.offline_node(1)?;
    lab.destroy_region()?;
    let before = lab.device().status()?;
    ensure!(before.used > 0, "there is nothing to sanitize");
    lab.sanitize(0)?;
    let after = lab.device().status()?;
    lab.fact("media used and data left", [after.used, after.data]);

    lab.step("the memory can be used again");
    lab.create_region()?;
    lab.online_node(1)?;
    let map = memory.map_on(1, MIB, LIMIT)?;
    memory.fill(map.all(), &NOISE, LIMIT)?;
    let verdict = memory.verify(map.all(), &NOISE, LIMIT)?;
    lab.fact("pages wrong after sanitize", verdict.pages_wrong + verdict.pages_poisoned);
    Ok(())
}

/// The security state, as the kernel reports it.
fn state(lab: &Lab) -> Result<String> {
    Ok(lab.guest.read_text("/sys/bus/cxl/devices/mem0/security/state")?.trim().to_owned())
}
