//! Drivers are unbound and bound, and the device is reset, while data is on the tier.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_rebind",
    story: "with data on the tier: its driver unbound and bound, cxl_pci unbound and bound, the function reset: nothing is lost",
    needs: &[Need::Cram, Need::Config("MEMORY_HOTREMOVE")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 32 << 20, ..DeviceShape::USUAL }],
    limit: Duration::from_secs(90),
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 16 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const DATA: Pattern = Pattern::Compressible { seed: 94, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let mut cram = lab.cram()?;
    let function = lab.function(0)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_anywhere(BYTES)?;
    memory.fill(map.all(), &DATA, LIMIT)?;

    let pci = "/sys/bus/pci/drivers/cxl_pci";
    let reset = format!("echo 1 > /sys/bus/pci/devices/{function}/reset");
    for (what, away, back) in [
        ("the tier's driver", cram.unbind_line(), cram.bind_line()),
        ("cxl_pci", format!("echo {function} > {pci}/unbind"), format!("echo {function} > {pci}/bind")),
        ("the function", reset, String::new()),
    ] {
        lab.step(&format!("{what}: data on the tier"));
        memory.move_pages(map.all(), &[cram.node], LIMIT)?;
        let before = memory.nodes(map.all())?.on(cram.node) == map.page_count();
        lab.step(&format!("{what}: away"));
        lab.sh(&away)?;
        let file = cram.file();
        let there = lab.holds(&format!("test -e {file}"))?;
        let between = memory.verify(map.all(), &DATA, LIMIT)?;
        lab.step(&format!("{what}: back"));
        if !back.is_empty() {
            lab.sh(&back)?;
        }
        cram.wait_up(lab)?;
        memory.move_pages(map.all(), &[cram.node], LIMIT)?;
        let after = memory.nodes(map.all())?.on(cram.node) == map.page_count();
        let wrong = memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong;
        lab.fact(
            what,
            json!({
                "data are on the tier": before, "the tier is there after that": there,
                "pages wrong then": between.pages_wrong + between.pages_poisoned,
                "data are on the tier again": after, "pages wrong at last": wrong,
            }),
        );
    }
    Ok(())
}
