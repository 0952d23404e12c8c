//! The lab a story is told on: a guest on a device, and a place for what is found out.

use std::{
    cell::Cell,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use cxl_cram_device::size::parse_bytes;
use indicatif::ProgressBar;
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use super::{Device, Facts, Figure, PoisonList, Scenario, events, pick};
use crate::{
    guest::{client::Guest, initramfs::Initramfs, trace::Trace},
    machine::{
        boot::Machine,
        config::{self, Drive, MachineConfig},
        launch::{Launch, launch},
    },
    provision::Provisioned,
};

/// How long a program in the guest may take, unless a step says otherwise.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a guest may take to boot, and to switch itself off.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// A guest on a device.
pub struct Lab {
    /// The guest.
    pub guest: Guest,
    /// The machine it runs on.
    pub machine: Machine,
    /// The device.
    pub device: Device,
    config: MachineConfig,
    launch: Launch,
    facts: Facts,
    figures: Vec<Figure>,
    step: String,
    progress: ProgressBar,
    /// The device's sockets. Removed last.
    _run: TempDir,
}

/// What is left when a lab is taken down.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) facts: Facts,
    pub(super) figures: Vec<Figure>,
    pub(super) verdict: Result<()>,
}

impl Lab {
    /// Starts the device, learns where BAR2 is, boots the guest.
    pub(super) fn set_up(
        scenario: &Scenario,
        provisioned: &Provisioned,
        artifacts: &Path,
        progress: &ProgressBar,
    ) -> Result<Self> {
        progress.set_message("starting the device");
        // A socket's name must be short: the artifact folder may be deep.
        let run = tempfile::Builder::new().prefix("cxl-cram-").tempdir().context("cannot make a temporary folder")?;
        let device = Device::start(&scenario.device, run.path(), &artifacts.join("device.log"))?;

        progress.set_message("booting the guest");
        let qemu = provisioned.qemu.clone();
        let mut machine = MachineConfig::new(Arc::new(move || qemu.command()));
        machine.memory = scenario.machine.memory_mib << 20;
        let capacity = parse_bytes(scenario.device.capacity).map_err(|why| anyhow!(why))?;
        machine.devices = vec![config::Device { socket: device.socket().to_owned(), capacity }];
        if scenario.machine.corpus {
            machine.drives = vec![Drive { image: provisioned.corpus.clone(), writable: false }];
        }
        let boot = Launch {
            kernel: provisioned.kernel.image.clone(),
            initramfs: Initramfs {
                agent: provisioned.guest_program.clone(),
                modules: provisioned.kernel.modules.clone(),
                tools: vec![provisioned.guest_tools.clone()],
                tables: Vec::new(),
            },
            append: String::new(),
            expected: Vec::new(),
            artifacts: artifacts.to_owned(),
            ready_limit: BOOT_LIMIT,
        };
        let launched = launch(&machine, &boot)?;
        Ok(Self {
            guest: launched.guest,
            machine: launched.machine,
            device,
            config: machine,
            launch: boot,
            facts: Facts::default(),
            figures: Vec::new(),
            step: String::new(),
            progress: progress.clone(),
            _run: run,
        })
    }

    /// Begins a step of the story: shown while it lasts, and named if it fails.
    pub fn step(&mut self, what: &str) {
        what.clone_into(&mut self.step);
        self.progress.set_message(what.to_owned());
    }

    /// The step now.
    pub(super) fn current_step(&self) -> &str {
        &self.step
    }

    /// States a fact for the snapshot: it must be the same in every run.
    pub fn fact(&mut self, name: &str, value: impl Serialize) {
        self.facts.push(name, serde_json::to_value(value).unwrap_or_default());
    }

    /// States a measured figure for the report.
    pub fn figure(&mut self, name: &str, value: impl ToString) {
        self.figures.push(Figure { name: name.to_owned(), value: value.to_string() });
    }

    /// Runs a shell line in the guest and returns its output; an exit code other than 0 is an error.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.guest.output(&["sh", "-c", line], LIMIT).with_context(|| format!("in the guest: {line}"))
    }

    /// Runs a program of the guest (words separated by spaces) whose output is JSON.
    pub fn json(&self, line: &str) -> Result<Value> {
        let words: Vec<_> = line.split_whitespace().collect();
        let output = self.guest.output(&words, LIMIT).with_context(|| format!("in the guest: {line}"))?;
        // cxl prints nothing at all where there is nothing to list.
        if output.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&output).with_context(|| format!("in the guest: {line}: not JSON: {output}"))
    }

    /// Runs `cxl` with these words and returns what it lists.
    pub fn cxl(&self, words: &str) -> Result<Value> {
        self.json(&format!("cxl {words}"))
    }

    /// Makes a region of the whole device and waits until its memory has come up. Returns what `cxl` says of it.
    pub fn create_region(&self) -> Result<Value> {
        let region = self.cxl("create-region -d decoder0.0 -m mem0 -t ram")?;
        // dax and kmem follow by themselves, later.
        self.guest.wait_path("/sys/devices/system/node/node1/meminfo", LIMIT)?;
        Ok(region)
    }

    /// Destroys the region whose memory is offline.
    pub fn destroy_region(&self) -> Result<()> {
        self.sh("cxl disable-region region0 && cxl destroy-region region0").map(drop)
    }

    /// Puts all memory of a node online as movable.
    pub fn online_node(&self, node: u32) -> Result<()> {
        self.sh(&format!("cxl-cram-guest online-node --node {node} --policy online_movable")).map(drop)
    }

    /// Takes all memory of a node offline.
    pub fn offline_node(&self, node: u32) -> Result<()> {
        self.sh(&format!("cxl-cram-guest offline-node --node {node}")).map(drop)
    }

    /// Where the kernel says that node 0's cold pages go.
    pub fn demotion_targets(&self) -> Result<String> {
        let log = self.sh("dmesg | grep -o 'Demotion targets for Node 0.*' | tail -n 1")?;
        Ok(log.trim().to_owned())
    }

    /// Sends a mailbox command by the raw path until the device is not busy with another; gives the return code.
    ///
    /// Linux does not wait for background commands on the raw path: one that takes any time is said to have timed out,
    /// and is told here as 1, "background operation started".
    pub fn mailbox(&self, opcode: u16, payload_hex: &str) -> Result<u16> {
        const STARTED: u16 = 1;
        const BUSY: u16 = 6;
        let opcode = format!("{opcode:#06x}");
        let words = ["cxl-cram-guest", "cxl-raw", "--allow-all", "--opcode", &opcode, "--payload-hex", payload_hex];
        let code = Cell::new(BUSY);
        self.wait("the device to be done with a background operation", |lab| {
            let ran = lab.guest.run(&words, LIMIT)?;
            if ran.exit.success() {
                let answer: Value = serde_json::from_str(&ran.stdout.text())?;
                code.set(u16::try_from(answer["return_code"].as_u64().context("no return code")?)?);
            } else {
                ensure!(ran.stderr.text().contains("timed out"), "mailbox command {opcode}: {}", ran.stderr.text());
                code.set(STARTED);
            }
            Ok(code.get() != BUSY)
        })?;
        Ok(code.get())
    }

    /// Waits for a trace event of this name and picks fields of it.
    pub fn event(&self, trace: &mut Trace, name: &str, keys: &[&str]) -> Result<Value> {
        let marker = format!(" {name}: ");
        let line = trace
            .wait_for(|line| line.contains(&marker), LIMIT)
            .with_context(|| format!("no {name} in the guest's trace"))?;
        Ok(pick(&Value::Object(events::fields(&line)), keys))
    }

    /// Has the kernel read the device's poison list, through its trace events.
    pub fn poison_list(&self) -> Result<PoisonList> {
        let trace = self.guest.trace("poison", &["cxl:cxl_poison"])?;
        self.guest.write_file("/sys/bus/cxl/devices/mem0/trigger_poison_list", "1")?;
        let mut list = PoisonList::default();
        for line in trace.stop()?.iter().filter(|line| line.contains(" cxl_poison: ")) {
            list.add(line)?;
        }
        Ok(list)
    }

    /// Waits until something holds on the host; `what` is for the error.
    pub fn wait(&self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !holds(self)? {
            ensure!(Instant::now() < end, "waited {LIMIT:?} for {what}");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Kills QEMU, as an operator or the OOM killer would, and waits for its end.
    pub fn kill_qemu(&mut self) -> Result<()> {
        self.machine.process().signal(Signal::KILL)?;
        self.machine.health().wait_exit(LIMIT).context("QEMU is killed and does not end")?;
        Ok(())
    }

    /// Boots another machine, the same as the one before, on the same device.
    pub fn boot_again(&mut self) -> Result<()> {
        let launched = launch(&self.config, &self.launch)?;
        (self.guest, self.machine) = (launched.guest, launched.machine);
        Ok(())
    }

    /// Interrupts that the guest has counted on these MSI-X vectors of the device.
    pub fn interrupts(&self, vectors: &[u16]) -> Result<Vec<u64>> {
        let text = self.guest.read_text("/proc/interrupts")?;
        let count = |vector: &u16| {
            // 30:  0  7  PCI-MSIX-0000:0d:00.0   7-edge   cxl_pci
            let name = format!(" {vector}-edge ");
            let lines = text
                .lines()
                .filter(|line| line.contains("PCI-MSI") && line.contains(":0d:00.0") && line.contains(&name));
            let numbers =
                lines.flat_map(|line| line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok()));
            numbers.sum()
        };
        Ok(vectors.iter().map(count).collect())
    }

    /// Ends guest and device, and joins their ends to how the story went.
    pub(super) fn take_down(mut self, told: Result<()>) -> Findings {
        self.progress.set_message("taking down");
        // Taken before the machine is shut down: the tail shows the story's end, not the shutdown.
        let report = self.machine.health().report();
        self.machine.shut_down(BOOT_LIMIT);
        let stopped = if self.device.killed() { Ok(()) } else { self.device.stop() };
        let verdict = told.and_then(|()| if report.troubles.is_empty() { stopped } else { Err(anyhow!("{report}")) });
        Findings { facts: self.facts, figures: self.figures, verdict }
    }
}
