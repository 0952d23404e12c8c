//! Event records: the device logs and interrupts, and the kernel decodes every field.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "events",
    story: "every kind of record through every log, and a log that overflows, decoded in the kernel's trace events",
    needs: &[Need::Path("/sys/kernel/tracing/events/cxl")],
    run,
    ..Scenario::USUAL
};

/// Records that a log holds, and records dropped here.
const CAPACITY: u64 = 256;
const DROPPED: u64 = 44;

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("a log overflows while no driver reads it; the driver finds out when it is bound again");
    let mut trace = lab.guest.trace("events", &["cxl"])?;
    let host = lab.cxl("list -M")?[0]["host"].as_str().context("no memory device")?.to_owned();
    let driver = "/sys/bus/pci/drivers/cxl_pci";
    lab.guest.write_file(&format!("{driver}/unbind"), host.as_str())?;
    for row in 0..CAPACITY + DROPPED {
        let place = json!({"dpa": 1, "descriptor": 0, "type": 0, "transaction-type": 1, "row": row});
        inject::<control::InjectDramEvent>(lab, "warning", place)?;
    }
    lab.guest.write_file(&format!("{driver}/bind"), host.as_str())?;
    let newest = json!({ "row": (CAPACITY - 1).to_string() });
    while lab.event(&mut trace, "cxl_dram", &["row"])? != newest {}
    lab.fact("records read", lab.events_seen(&mut trace, "cxl_dram").len());
    for overflow in lab.events_seen(&mut trace, "cxl_overflow") {
        // The rest is the times of the first and the last record.
        let count = overflow["said"].as_str().and_then(|said| said.split(" from ").next());
        lab.fact("overflow", json!({"log": overflow["log"], "count": count}));
    }

    lab.step("a DPA is reported with its place in the region");
    lab.create_region()?;
    let place = json!({"dpa": 0x10_0001, "descriptor": 3, "type": 2, "transaction-type": 6, "channel": 3, "rank": 1,
        "device": 7, "component-id": "dimm 0", "flags": 0x3c, "maint-op-class": 1});
    inject::<control::InjectGeneralMediaEvent>(lab, "failure", place)?;
    lab.fact("general media", lab.whole_event(&mut trace, "cxl_general_media")?);
    let place = json!({"dpa": 0x20_0001, "descriptor": 1, "type": 1, "transaction-type": 2, "channel": 3, "rank": 1,
        "nibble-mask": 5, "bank-group": 2, "bank": 3, "row": 4711, "column": 42, "correction-mask": [1, 2]});
    inject::<control::InjectDramEvent>(lab, "warning", place)?;
    lab.fact("dram", lab.whole_event(&mut trace, "cxl_dram")?);

    lab.step("the device's health at the time of the event");
    let health = json!({"type": 3, "health-status": 5, "media-status": 2, "additional-status": 0x15, "life-used": 99,
        "temperature": -20, "dirty-shutdown-count": 1, "corrected-volatile-error-count": 2,
        "corrected-persistent-error-count": 3});
    inject::<control::InjectMemoryModuleEvent>(lab, "fatal", health)?;
    lab.fact("memory module", lab.whole_event(&mut trace, "cxl_memory_module")?);

    lab.step("a record of an unknown type is reported as bytes");
    let unknown = json!({"uuid": "5e1f0000-0000-4000-8000-000000000001", "data": "c0ffee"});
    inject::<control::InjectEvent>(lab, "informational", unknown)?;
    lab.fact("generic", lab.whole_event(&mut trace, "cxl_generic_event")?);
    // Information, warning, failure, fatal. One of the two warnings reported the backlog to the returning driver.
    lab.fact("interrupts of vectors 2 to 5", lab.interrupts(&[2, 3, 4, 5])?);
    Ok(())
}

/// Makes the device log a record.
fn inject<C: control::Command + Serialize + DeserializeOwned>(
    lab: &Lab,
    log: &str,
    mut arguments: Value,
) -> Result<()> {
    arguments["log"] = log.into();
    lab.device().execute(serde_json::from_value::<C>(arguments)?).map(drop)
}
