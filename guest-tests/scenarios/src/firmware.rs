//! A firmware package goes to the device through the kernel's upload and waits for the next power-on.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "firmware",
    story: "cxl update-firmware writes the spare slot and stages it; activated at once by raw command it runs",
    needs: &[
        Need::Config("FW_UPLOAD"),
        Need::Config("CXL_MEM_RAW_COMMANDS"),
        Need::Path("/sys/bus/cxl/devices/mem0/firmware"),
    ],
    run,
    ..Scenario::USUAL
};

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("the first slot is running");
    lab.fact("before", firmware(lab)?);

    lab.step("a package of several parts goes into the other");
    // The first 16 bytes name the revision. 5000 bytes are three parts: the mailbox's payload is 2048 bytes with the header.
    let package: Vec<u8> = b"v9.9".iter().copied().chain([0; 5000]).collect();
    lab.guest.write_file("/tmp/package", package)?;
    lab.sh("cxl update-firmware -F /tmp/package -w mem0")?;
    lab.fact("after the update", firmware(lab)?);

    lab.step("Activate FW, at once");
    lab.fact("return code", lab.mailbox(0x0202, "0002")?);
    lab.fact("after activation", firmware(lab)?);
    Ok(())
}

fn firmware(lab: &Lab) -> Result<Value> {
    Ok(lab.cxl("list -M -F")?[0]["firmware"].clone())
}
