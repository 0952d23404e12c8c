//! Poison by the mailbox: injected, seen, listed, cleared.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "poison",
    story: "a line poisoned through debugfs reads as poison, is listed by kernel and device, and is whole again once cleared",
    needs: &[
        Need::Path("/sys/kernel/debug/cxl/mem0/inject_poison"),
        Need::Path("/sys/kernel/tracing/events/cxl/cxl_poison"),
    ],
    run,
    ..Scenario::USUAL
};

const LIMIT: Duration = Duration::from_secs(60);
/// The most lines that can be injected, and bytes of a line.
const LINES: u64 = 256;
const LINE: u64 = 64;

fn run(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut trace = lab.guest.trace("events", &["cxl"])?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(1, 1 << 20, LIMIT)?;
    memory.fill(map.all(), &Pattern::Zero, LIMIT)?;
    let frame = memory.physical(&map, 16, 1)?[0].context("the page is not present")?;
    let dpa = lab.dpa(0, frame)?;

    lab.step("two lines of a page that a program holds");
    for line in [dpa, dpa + LINE] {
        poison(lab, "inject", line)?;
    }
    lab.fact("event", lab.event(&mut trace, "cxl_general_media", &["log", "descriptor", "transaction_type"])?);
    let seen = memory.verify(map.all(), &Pattern::Zero, LIMIT)?;
    lab.fact("pages that read as poison", seen.pages_poisoned);
    lab.fact("pages silently wrong", seen.pages_wrong);

    lab.step("kernel and device list the same run, the region by its place in it");
    let listed = lab.cxl("list -M -L")?[0]["media_errors"].clone();
    lab.fact("records", listed.as_array().map(Vec::len));
    lab.fact("listed where it was injected", listed[0]["offset"] == json!(dpa));
    lab.fact("record", pick(&listed[0], &["length", "source"]));
    lab.fact("listed by the region alike", lab.cxl("list -R -L")?[0]["media_errors"] == listed);
    let run = control::PoisonRun { start: dpa, length: 128, source: PoisonSource::Injected };
    lab.fact("listed by the device alike", lab.device().poison_list()? == [run]);
    let mut list = lab.guest.trace("list", &["cxl:cxl_poison"])?;
    lab.guest.write_file("/sys/bus/cxl/devices/mem0/trigger_poison_list", "1")?;
    let record = lab.whole_event(&mut list, "cxl_poison")?;
    let hex = |value: u64| format!("{value:#x}");
    lab.fact("the trace has DPA and HPA", record["dpa"] == hex(dpa) && record["hpa"] == hex(frame));
    lab.fact("trace", pick(&record, &["trace_type", "region", "dpa_length", "source", "flags", "overflow_time"]));

    lab.step("cleared lines are zero");
    for line in [dpa, dpa + LINE] {
        poison(lab, "clear", line)?;
    }
    let seen = memory.verify(map.all(), &Pattern::Zero, LIMIT)?;
    lab.fact("pages wrong or poisoned after clear", seen.pages_wrong + seen.pages_poisoned);
    lab.fact("poisoned after clear", lab.device().status()?.poisoned);

    lab.step("refused: not a line, beyond the capacity, too many");
    let capacity = lab.device().status()?.capacity;
    for (why, dpa) in [("not a line", 1), ("beyond", capacity), ("before the end, not a line", capacity - 1)] {
        for what in ["inject", "clear"] {
            lab.fact(&format!("{what}: {why}"), refused(lab, what, dpa)?);
        }
    }
    // The region's last lines hold no program's data.
    let start = capacity - (LINES + 1) * LINE;
    lab.device().execute(control::InjectPoison { start, length: LINES * LINE })?;
    lab.fact("inject: limit reached", refused(lab, "inject", capacity - LINE)?);
    poison(lab, "clear", start)?;
    poison(lab, "inject", capacity - LINE)?;
    lab.fact("after one is cleared there is room", lab.cxl("list -M -L")?[0]["media_errors"].clone());
    Ok(())
}

/// Injects or clears poison through the kernel's debugfs file.
fn poison(lab: &Lab, what: &str, dpa: u64) -> Result<()> {
    Ok(lab.guest.write_file(&format!("/sys/kernel/debug/cxl/mem0/{what}_poison"), format!("{dpa:#x}").as_str())?)
}

/// The kernel's reason for a refusal.
fn refused(lab: &Lab, what: &str, dpa: u64) -> Result<String> {
    lab.refused(&format!("echo {dpa:#x} > /sys/kernel/debug/cxl/mem0/{what}_poison"))
}
