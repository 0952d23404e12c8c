//! Regions come and go: of a part of the device, of all of it, and those that must not be.

use cxl_cram_harness::scenario::prelude::*;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "region",
    story: "a decoder committed, reprogrammed to another size; regions too large, in use or elsewhere are refused",
    needs: &[Need::Config("CXL_REGION"), Need::Config("DEV_DAX_KMEM")],
    tell,
    ..Scenario::USUAL
};

const SYSFS: &str = "/sys/bus/cxl/devices";

fn tell(lab: &mut Lab) -> Result<()> {
    lab.step("half of the device");
    let half = lab.create_region_of(0, "-s 256M")?;
    lab.fact("half", lab.decoders(0)?);

    lab.step("what is refused");
    let window = lab.window(0)?;
    let memdev = lab.memdev(0)?;
    refused(lab, "larger than what is free", &format!("cxl create-region -d {window} -m {memdev} -t ram -s 512M"))?;
    refused(lab, "destroyed while enabled", &format!("cxl destroy-region {}", half.name))?;
    lab.destroy(&half.name)?;
    lab.fact("destroyed", lab.decoders(0)?);

    lab.step("all of it, by the same decoder");
    let whole = lab.create_region_on(0)?;
    lab.fact("whole", lab.decoders(0)?);
    lab.destroy(&whole.name)?;

    lab.step("the device's first half at the window's second half: its window cannot do that, so it does not commit");
    let window = format!("{SYSFS}/{window}");
    let taken = lab.guest.read_text(&format!("{window}/create_ram_region"))?.trim().to_owned();
    lab.sh(&format!(
        "cd {SYSFS} && echo {taken} > {window}/create_ram_region && echo 1 > {taken}/interleave_ways && \
         echo 256 > {taken}/interleave_granularity && echo 0x10000000 > {taken}/size"
    ))?;
    refused(lab, "elsewhere", &format!("cxl create-region -d {} -m {memdev} -t ram -s 256M", lab.window(0)?))?;
    lab.fact("elsewhere", lab.decoders(0)?);
    lab.sh(&format!("echo {taken} > {window}/delete_region"))?;

    lab.step("where it belongs, it still can");
    lab.create_region_on(0)?;
    lab.fact("whole again", lab.decoders(0)?);
    Ok(())
}

fn refused(lab: &mut Lab, what: &str, line: &str) -> Result<()> {
    let said = lab.refused(line)?;
    lab.fact(&format!("{what}.refused"), said.lines().collect::<Vec<_>>());
    Ok(())
}
