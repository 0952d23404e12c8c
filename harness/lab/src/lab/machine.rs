//! The machine under the guest: killing, restarting, interrupts, physical memory.

use std::sync::PoisonError;

use anyhow::{Context, Result, ensure};
use cxl_cram_wire::pattern::PAGE;
use qapi::qmp::human_monitor_command;
use rustix::process::Signal;

use super::machine_check::MachineChecks;
use super::{LIMIT, Lab};
use crate::machine::launch::launch;
use crate::rig::stage::{BOOT_LIMIT, second_kernel};

impl Lab {
    /// Kills QEMU, as an operator or the OOM killer would, and waits for its end.
    pub fn kill_qemu(&mut self) -> Result<()> {
        self.machine.process().signal(Signal::KILL)?;
        self.machine.health().wait_exit(LIMIT).context("QEMU did not end after SIGKILL")?;
        Ok(())
    }

    /// Boots another machine of the same kind on the same devices.
    pub fn boot_again(&mut self) -> Result<()> {
        self.machine_checks.take().map_or(Ok(()), MachineChecks::finish)?;
        let launched = launch(&self.config, &self.launch)?;
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = launched.machine.hang_probe();
        (self.guest, self.machine, self.bars) = (launched.guest, launched.machine, launched.learned.bars);
        self.follow_poison()
    }

    /// Makes poison that the guest loads raise machine checks, if the scenario asks for it.
    pub(super) fn follow_poison(&mut self) -> Result<()> {
        if self.config.machine_checks {
            self.machine_checks = Some(MachineChecks::start(self)?);
        }
        Ok(())
    }

    /// Restarts the guest on the same devices, as `reboot` does, and waits until its agent is back. The machine's shape
    /// must allow restarts. Drop everything that holds memory or a trace in the guest first.
    pub fn reboot(&mut self) -> Result<()> {
        self.kernel = self.guest.reboot(BOOT_LIMIT)?.kernel;
        Ok(())
    }

    /// Crashes the guest's kernel into a restart (sysrq b: nothing is written out or torn down), and waits until its
    /// agent is back.
    pub fn crash_reboot(&mut self) -> Result<()> {
        // The guest is gone before it can answer.
        let _ = self.guest.run(&["sh", "-c", "echo b > /proc/sysrq-trigger"], BOOT_LIMIT);
        self.kernel = self.guest.wait_hello(BOOT_LIMIT)?.kernel;
        Ok(())
    }

    /// Starts the guest's kernel anew by kexec: the machine is not reset, and no firmware runs. The machine's shape must have a
    /// [`second_kernel`](crate::rig::shape::MachineShape::second_kernel). Drop everything that holds memory or a trace first.
    pub fn kexec(&mut self) -> Result<()> {
        let [kernel, initrd] = second_kernel(&self.launch.kernel, &self.launch.artifacts);
        for (image, copy) in [(&kernel, "/tmp/kernel"), (&initrd, "/tmp/initrd")] {
            let number = self.config.drives.iter().position(|drive| drive.image == *image);
            let number = number.context("the machine has no second kernel; ask for one in its shape")?;
            let letter = char::from(b'a' + u8::try_from(number).context("too many drives")?);
            // The call takes files, not disks.
            self.sh(&format!("cat /dev/vd{letter} > {copy}"))?;
        }
        let append = self.guest.read_text("/proc/cmdline")?;
        self.kernel = self.guest.kexec("/tmp/kernel", "/tmp/initrd", append.trim(), BOOT_LIMIT)?.kernel;
        Ok(())
    }

    /// Runs a command of QEMU's human monitor, and returns its output.
    pub(super) fn monitor(&self, command: &str) -> Result<String> {
        let command = human_monitor_command { command_line: command.to_owned(), cpu_index: None };
        Ok(self.machine.monitor()?.execute(&command)?)
    }

    /// The content of a page of the guest's physical memory, in words of eight bytes, as the machine sees it, independent of
    /// the guest's kernel.
    pub fn physical_page(&self, address: u64) -> Result<Vec<u64>> {
        let output = self.monitor(&format!("xp /{}xg {address:#x}", PAGE / 8))?;
        // 000000ff40000000: 0x0000000000000000 0x0000000000000000
        let words =
            output.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, words)| words.split_whitespace());
        let number = |word: &str| Ok(u64::from_str_radix(word.trim_start_matches("0x"), 16)?);
        let words =
            words.map(number).collect::<Result<Vec<_>>>().with_context(|| format!("the monitor printed {output}"))?;
        ensure!(words.len() == PAGE / 8, "the monitor printed {output}");
        Ok(words)
    }

    /// How many of these pages of the guest's physical memory the machine sees as all zeros, as text.
    pub fn blank_pages(&self, addresses: &[u64]) -> Result<String> {
        let mut blank = 0;
        for &address in addresses {
            blank += usize::from(self.physical_page(address)?.iter().all(|&word| word == 0));
        }
        Ok(format!("{blank} of {} pages are blank", addresses.len()))
    }

    /// Interrupts that the guest has counted on these MSI-X vectors of the first device.
    pub fn interrupts(&self, vectors: &[u16]) -> Result<Vec<u64>> {
        self.interrupts_on(0, vectors)
    }

    /// Interrupts that the guest has counted on these MSI-X vectors of a device. A vector no longer in use counts as 0.
    pub fn interrupts_on(&self, device: usize, vectors: &[u16]) -> Result<Vec<u64>> {
        let text = self.guest.read_text("/proc/interrupts")?;
        let function = self.function(device)?;
        let count = |vector: &u16| {
            // 30:  0  7  PCI-MSIX-0000:0d:00.0   7-edge   cxl_pci
            let name = format!(" {vector}-edge ");
            let lines = text
                .lines()
                .filter(|line| line.contains("PCI-MSI") && line.contains(&function) && line.contains(&name));
            let numbers =
                lines.flat_map(|line| line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok()));
            numbers.sum()
        };
        Ok(vectors.iter().map(count).collect())
    }
}
