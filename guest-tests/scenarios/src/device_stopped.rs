//! The device's process is stopped in the middle of everything, as by a debugger or a frozen cgroup, and goes on: so does the
//! guest.

use std::thread;

use cxl_cram_lab::prelude::*;
use cxl_cram_lab::wire::protocol::Program;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "device_stopped",
    story: "the device stands still for 8 s while the guest stores and uses the mailbox; the guest stands and goes on, its data whole",
    needs: &[Need::Config("CXL_MEM_RAW_COMMANDS")],
    devices: SHAPES,
    limit: Duration::from_secs(120),
    run: |lab| stop_for(lab, Duration::from_secs(8)),
    ..Scenario::USUAL
};

/// More is stored than the window holds, so that a stopped device stops the guest's stores.
pub(crate) const SHAPES: &[DeviceShape] = &[DeviceShape { cache: 8 << 20, ..DeviceShape::USUAL }];

const BYTES: u64 = 32 << 20;
const ROUNDS: u32 = 6;
const LIMIT: Duration = Duration::from_secs(100);
/// Get Health Info over and over, counted, until the file is gone. What it prints last is the count, or that one failed.
const MAILBOX: &str = "touch /tmp/go; n=0; while [ -e /tmp/go ]; do
    cxl-cram-guest cxl-raw --memdev mem0 --allow-all --opcode 0x4200 >/dev/null || { echo failed; exit 1; }
    n=$((n + 1)); echo $n >/tmp/count.new; mv /tmp/count.new /tmp/count; done";

/// The scenario with a stop this long. QEMU's own limit on an answer is 5 s.
pub(crate) fn stop_for(lab: &mut Lab, time: Duration) -> Result<()> {
    lab.step("one program stores to the node, another sends mailbox commands");
    lab.create_region()?;
    lab.online_node(1)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(1, BYTES, LIMIT)?;
    let mut mailbox = lab.guest.spawn(Program::new(["sh", "-c", MAILBOX]))?;
    lab.wait("the first mailbox commands", |lab| Ok(sent(lab) >= 3))?;

    let (churned, commands) = thread::scope(|scope| -> Result<_> {
        let churn = scope.spawn(|| memory.churn(map.all(), 2, ROUNDS, &[], LIMIT));
        let before = lab.device().status()?.resident.evicted;
        lab.wait("the device to evict", |lab| Ok(lab.device().status()?.resident.evicted > before + 1024))?;

        lab.step("the device is stopped, and goes on");
        let commands = sent(lab);
        let stopped = Instant::now();
        lab.device().freeze(time)?;
        lab.figure("stopped for", format!("{:.1} s", stopped.elapsed().as_secs_f64()));
        lab.fact("the guest was storing when it was stopped, and is not done", !churn.is_finished());
        Ok((churn.join().map_err(|_| anyhow!("a thread panicked"))??, commands))
    })?;

    lab.step("the guest goes on");
    lab.wait("more mailbox commands", |lab| Ok(sent(lab) >= commands + 3))?;
    lab.sh("rm /tmp/go")?;
    lab.fact("mailbox commands that failed", u8::from(!mailbox.wait(LIMIT)?.success()));
    lab.fact("pages compared", churned.verdict.pages);
    lab.fact("pages wrong", churned.verdict.pages_wrong);
    lab.fact("pages poisoned", churned.verdict.pages_poisoned);
    lab.fact("the device's health", lab.mailbox(0x4200, "")?);
    lab.fact("regions", lab.cxl("list -R")?.as_array().map(Vec::len));
    lab.fact("QEMU is still attached", lab.device().status()?.client_connected);
    Ok(())
}

/// Mailbox commands sent so far.
fn sent(lab: &Lab) -> u64 {
    lab.guest.read_text("/tmp/count").ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
