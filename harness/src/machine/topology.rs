//! QEMU's arguments.
//! `q35,cxl=on` without `cxl-fmw`: QEMU then describes only the CXL host bridge, and the window over the device's BAR
//! comes from our own CEDT. Guest memory is a shared memfd, because the device is another process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cxl_cram_guest::protocol::PORT_NAME;
use serde_json::json;

use super::config::{Accel, MAX_DEVICES, MachineConfig};

/// The bus number of the CXL host bridge: it is also its ACPI `_UID`.
pub const HOST_BRIDGE_BUS: u8 = 12;
/// A slot number for the first root port; those after it count on.
const FIRST_SLOT: usize = 2;

/// The sockets of a running machine. QEMU listens on both.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// The monitor.
    pub qmp: PathBuf,
    /// The agent's port.
    pub agent: PathBuf,
}

impl Sockets {
    /// The sockets of a machine that keeps them in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self { qmp: directory.join("qmp.sock"), agent: directory.join("agent.sock") }
    }
}

/// A kernel to boot instead of the firmware's own choice.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// A bzImage.
    pub image: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub append: String,
}

/// What the HMAT says of node 0's memory and of the way to the host bridge: a machine like those CXL is sold for.
/// Nanoseconds, and bytes per second.
const PORT_DOMAIN: usize = MAX_DEVICES + 1;
const MEMORY_LATENCY: u32 = 90;
const PORT_LATENCY: u32 = 40;
const BANDWIDTH: &str = "64G";

/// The identifier of a device's root port in the monitor.
pub fn root_port(index: usize) -> String {
    format!("rp{index}")
}

/// The arguments that give a machine its monitor.
pub fn monitor(sockets: &Sockets) -> [String; 2] {
    ["-qmp".into(), format!("unix:{}", listen(&sockets.qmp))]
}

/// The machine's arguments, without the program. The console is standard output.
pub fn arguments(config: &MachineConfig, sockets: &Sockets, kernel: Option<&Kernel>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    let memory = config.memory.to_string();

    add(&["-nodefaults", "-no-user-config", "-display", "none"]);
    add(&["-M", "q35,cxl=on,hmat=on"]);
    match config.accel {
        Accel::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
        Accel::Tcg => add(&["-accel", "tcg,thread=multi", "-cpu", "max"]),
    }
    add(&["-smp", &config.processors.to_string(), "-m", &format!("{memory}B")]);
    add(&["-object", &format!("memory-backend-memfd,id=ram,size={memory},share=on")]);
    // An explicit node makes QEMU describe proximity domains. Without them Linux does not look at the CEDT for nodes.
    add(&["-numa", &format!("node,nodeid=0,memdev=ram,cpus=0-{}", config.processors.saturating_sub(1))]);
    // The host bridge as a generic port, a domain of its own: Linux adds what HMAT says of the way to it to what CDAT
    // says of the device. Linux numbers the domains of CXL windows on from the last one with memory; a port among those
    // would pass for the window's memory. So the port comes after as many empty domains as there can be windows.
    for node in 1..=PORT_DOMAIN {
        add(&["-numa", &format!("node,nodeid={node},initiator=0")]);
    }
    add(&["-object", &format!("acpi-generic-port,id=port,pci-bus=cxl,node={PORT_DOMAIN}")]);
    for (target, latency) in [(0, MEMORY_LATENCY), (PORT_DOMAIN, PORT_LATENCY)] {
        let path = format!("hmat-lb,initiator=0,target={target},hierarchy=memory");
        add(&["-numa", &format!("{path},data-type=access-latency,latency={latency}")]);
        add(&["-numa", &format!("{path},data-type=access-bandwidth,bandwidth={BANDWIDTH}")]);
    }
    if !config.restarts {
        add(&["-no-reboot"]);
    }
    add(&["-serial", "stdio"]);

    // A host bridge with one port needs no decoders, and then has none. Without them Linux makes one region below it, and
    // no second.
    add(&["-device", &format!("pxb-cxl,id=cxl,bus=pcie.0,bus_nr={HOST_BRIDGE_BUS},hdm_for_passthrough=on")]);
    for (index, device) in config.devices.iter().enumerate() {
        let port = root_port(index);
        let slot = FIRST_SLOT + index;
        add(&["-device", &format!("cxl-rp,id={port},bus=cxl,port={index},chassis=0,slot={slot}")]);
        let function = json!({
            "driver": "vfio-user-pci",
            "id": format!("cxl-mem{index}"),
            "bus": port,
            "socket": { "type": "unix", "path": device.socket },
        });
        add(&["-device", &function.to_string()]);
    }

    add(&monitor(sockets).each_ref().map(String::as_str));
    // Without a bus, QEMU would put PCI devices on the CXL host bridge, which takes only root ports.
    add(&["-device", "virtio-serial-pci,id=serial,bus=pcie.0"]);
    add(&["-chardev", &format!("socket,id=agent,path={}", listen(&sockets.agent))]);
    add(&["-device", &format!("virtserialport,bus=serial.0,chardev=agent,name={PORT_NAME}")]);

    for (index, drive) in config.drives.iter().enumerate() {
        let node = json!({
            "driver": "raw",
            "node-name": format!("drive{index}"),
            "read-only": !drive.writable,
            "file": { "driver": "file", "filename": drive.image },
        });
        add(&["-blockdev", &node.to_string()]);
        add(&["-device", &format!("virtio-blk-pci,drive=drive{index},bus=pcie.0")]);
    }
    if let Some(kernel) = kernel {
        arguments.extend(["-kernel".into(), kernel.image.clone().into()]);
        arguments.extend(["-initrd".into(), kernel.initrd.clone().into()]);
        arguments.extend(["-append".into(), kernel.append.clone().into()]);
    }
    arguments.extend(config.extra.iter().cloned());
    arguments
}

/// A path that QEMU listens on without waiting. A comma in an option's value is written twice.
fn listen(path: &Path) -> String {
    format!("{},server=on,wait=off", path.to_string_lossy().replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use super::super::config::{Device, Drive};
    use super::*;

    fn config() -> MachineConfig {
        let mut config = MachineConfig::new(Arc::new(|| Command::new("qemu-system-x86_64")));
        config.devices = vec![
            Device { socket: "/s/a\"b".into(), capacity: 1 << 30 },
            Device { socket: "/s/c".into(), capacity: 1 << 30 },
        ];
        config
    }

    fn text(config: &MachineConfig, kernel: Option<&Kernel>) -> Vec<String> {
        let sockets = Sockets::in_directory(Path::new("/run/x,y"));
        arguments(config, &sockets, kernel).into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn every_device_has_a_root_port_and_there_is_no_window_of_qemus() {
        let words = text(&config(), None);
        let ports: Vec<_> = words.iter().filter(|word| word.starts_with("cxl-rp,")).collect();
        assert_eq!(ports.len(), 2);
        assert!(ports[1].contains("id=rp1") && ports[1].contains("slot=3"));
        let functions: Vec<serde_json::Value> =
            words.iter().filter(|word| word.starts_with('{')).map(|word| serde_json::from_str(word).unwrap()).collect();
        assert_eq!(functions[0]["socket"]["path"], "/s/a\"b");
        assert_eq!(functions[1]["bus"], "rp1");
        assert!(!words.iter().any(|word| word.contains("cxl-fmw")));
        assert!(words.iter().any(|word| word.contains("path=/run/x,,y/agent.sock")));
    }

    #[test]
    fn the_firmware_only_boot_is_the_same_machine_without_the_kernel() {
        let mut config = config();
        config.drives.push(Drive { image: "/d".into(), writable: false });
        let kernel = Kernel { image: "/k".into(), initrd: "/i".into(), append: "console=ttyS0".into() };
        let (without, with) = (text(&config, None), text(&config, Some(&kernel)));
        assert_eq!(with[..without.len()], without);
        assert_eq!(with[without.len()..], ["-kernel", "/k", "-initrd", "/i", "-append", "console=ttyS0"]);
    }
}
