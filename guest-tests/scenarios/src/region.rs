//! Regions are created and destroyed: of part of the device, of all of it, and invalid ones.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "region",
    story: "a decoder committed, reprogrammed to another size; regions too large, in use or elsewhere are refused",
    needs: &[Need::Config("CXL_REGION"), Need::Config("DEV_DAX_KMEM")],
    run,
    ..Scenario::USUAL
};

const SYSFS: &str = "/sys/bus/cxl/devices";

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("half of the device");
    let half = lab.create_region_of(0, "-s 256M")?;
    lab.fact("half", lab.decoders(0)?);

    lab.step("invalid regions are refused");
    let window = lab.window(0)?;
    let memdev = lab.memdev(0)?;
    refused(lab, "larger than what is free", &format!("cxl create-region -d {window} -m {memdev} -t ram -s 512M"))?;
    refused(lab, "destroyed while enabled", &format!("cxl destroy-region {}", half.name))?;
    lab.destroy(&half.name)?;
    lab.fact("destroyed", lab.decoders(0)?);

    lab.step("the whole device, by the same decoder");
    let whole = lab.create_region_on(0)?;
    lab.fact("whole", lab.decoders(0)?);
    lab.destroy(&whole.name)?;

    lab.step("the device's first half at the window's second half: the device cannot map that, and does not commit");
    let window = format!("{SYSFS}/{window}");
    let taken = lab.guest.read_text(&format!("{window}/create_ram_region"))?.trim().to_owned();
    lab.sh(&format!(
        "cd {SYSFS} && echo {taken} > {window}/create_ram_region && echo 1 > {taken}/interleave_ways && \
         echo 256 > {taken}/interleave_granularity && echo 0x10000000 > {taken}/size"
    ))?;
    refused(lab, "elsewhere", &format!("cxl create-region -d {} -m {memdev} -t ram -s 256M", lab.window(0)?))?;
    lab.fact("elsewhere", lab.decoders(0)?);
    lab.sh(&format!("echo {taken} > {window}/delete_region"))?;

    lab.step("at the right place, it still commits");
    lab.create_region_on(0)?;
    lab.fact("whole again", lab.decoders(0)?);
    Ok(())
}

fn refused(lab: &mut Lab, what: &str, line: &str) -> Result<()> {
    let refusal = lab.refused(line)?;
    lab.fact(&format!("{what}.refused"), refusal.lines().collect::<Vec<_>>());
    Ok(())
}
