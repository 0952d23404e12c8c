//! How fast the memory is: the kernel adds up the device's CDAT and the HMAT of the path to it.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "performance",
    story: "CDAT and HMAT become a QoS class, the node's latency and bandwidth, and its memory tier",
    needs: &[Need::Config("ACPI_HMAT"), Need::Config("PCI_DOE"), Need::Path("/sys/devices/virtual/memory_tiering")],
    // It is quick, and the shortest limit makes it start first, so that a result appears soon.
    limit: Duration::from_secs(30),
    run,
    ..Scenario::USUAL
};

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("the device describes its memory");
    let cdat = lab.guest.read_file("/sys/bus/cxl/devices/endpoint2/CDAT")?;
    lab.fact("cdat", structures(&cdat)?);
    lab.fact("cdat.checksum", cdat.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)));

    lab.step("device and window have the same QoS class");
    let class = lab.sh("cd /sys/bus/cxl/devices && cat mem0/ram/qos_class decoder0.0/qos_class")?;
    lab.fact("qos_class of device and window", class.split_whitespace().collect::<Vec<_>>());

    lab.step("the node's figures are the sum of device and path: 40 ns by HMAT, and the link");
    let region = lab.create_region()?;
    lab.fact("region", pick(&region, &["region", "qos_class_mismatch"]));
    lab.online_node(1)?;
    lab.fact("node 0", lab.performance(0)?);
    lab.fact("node 1", lab.performance(1)?);
    let figures = "cd /sys/bus/cxl/devices/region0 && grep . access?/*";
    lab.fact("region figures", lab.sh(figures)?.lines().collect::<Vec<_>>());

    lab.step("slower memory has its own tier");
    lab.fact("memory tiers", lab.memory_tiers()?);
    lab.fact("demotion", lab.demotion_targets()?);
    Ok(())
}

/// The CDAT's structures in order, with their content (CDAT 1.04).
fn structures(cdat: &[u8]) -> Result<Vec<Value>> {
    const HEADER: usize = 16;
    let mut rest = cdat.get(HEADER..).context("the header is truncated")?;
    let mut found = Vec::new();
    while let [kind, _, length, more, ..] = *rest {
        let length = usize::from(u16::from_le_bytes([length, more]));
        ensure!((4..=rest.len()).contains(&length), "a structure of length {length}");
        let (structure, after) = rest.split_at(length);
        let quad = |at: usize| -> Result<u64> {
            let bytes = structure.get(at..at + 8).context("a structure is truncated")?;
            Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
        };
        found.push(match kind {
            0 => json!({"DSMAS": structure[4], "flags": structure[5], "dpa": quad(8)?, "length": quad(16)?}),
            1 => {
                let names = [
                    "access latency",
                    "read latency",
                    "write latency",
                    "access bandwidth",
                    "read bandwidth",
                    "write bandwidth",
                ];
                let value = quad(8)? * (quad(16)? & 0xffff);
                let kind = names.get(usize::from(structure[6])).context("an unknown data type")?;
                let unit = if kind.ends_with("latency") { "ps" } else { "MB/s" };
                json!({"DSLBIS": structure[4], *kind: format!("{value} {unit}")})
            }
            4 => json!({"DSEMTS": structure[4], "type": structure[5], "offset": quad(8)?, "length": quad(16)?}),
            other => bail!("a structure of type {other}"),
        });
        rest = after;
    }
    Ok(found)
}
