//! QEMU's arguments.
//! `q35,cxl=on` without `cxl-fmw`: QEMU then describes only the CXL host bridge, and the window over the device's BAR
//! comes from our own CEDT. Guest memory is a shared memfd, because the device is another process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cxl_cram_guest::protocol::PORT_NAME;
use serde_json::json;

use super::config::{Accel, Domain, MAX_DEVICES, MachineConfig};

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
/// Nanoseconds, and GiB per second.
const PORT_DOMAIN: usize = MAX_DEVICES + 1;
const PORT_LATENCY: u32 = 40;
const BANDWIDTH: u32 = 64;
/// The longest distance in a SLIT; 255 is out of reach.
const FARTHEST: u8 = 254;

/// QEMU's devices reach a window, as any BAR of another device, by way of bounce buffers. One page of them, the usual, is less
/// than one request, and 64 MiB are less than what a disk is told to swap out: the guest's driver would be told that its device
/// is broken, and wait for ever. So as much as the option takes; a disk has at most 254 MiB under way for each of the guest's
/// processors. The limit is the PCI function's, and virtio keeps to that only when it says so.
const BOUNCE: &str = "disable-legacy=on,iommu_platform=on,x-max-bounce-buffer-size=4095M";

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
    let (accel, model) = match config.accel {
        Accel::Kvm => ("kvm", "host"),
        // A processor with fast string instructions has Linux copy and clear pages by `rep movsb`, which TCG does byte by byte.
        Accel::Tcg => ("tcg,thread=multi", "max,erms=off,fsrm=off"),
    };
    // Linux goes by the vendor: of AMD's processors it survives a machine check only where they have features that QEMU's lack.
    let vendor = if config.machine_checks { ",vendor=GenuineIntel" } else { "" };
    add(&["-accel", accel, "-cpu", &format!("{model}{vendor}")]);
    add(&["-smp", &config.processors.to_string(), "-m", &format!("{memory}B")]);
    add(&["-object", &format!("memory-backend-memfd,id=ram,size={memory},share=on")]);
    // An explicit node makes QEMU describe proximity domains. Without them Linux does not look at the CEDT for nodes.
    add(&["-numa", &format!("node,nodeid=0,memdev=ram,cpus=0-{}", config.processors.saturating_sub(1))]);
    arguments.extend(domains(config).into_iter().flat_map(|numa| ["-numa".into(), numa.into()]));
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    if config.domains.is_empty() {
        add(&["-object", &format!("acpi-generic-port,id=port,pci-bus=cxl,node={PORT_DOMAIN}")]);
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
    add(&["-device", &format!("virtio-serial-pci,id=serial,bus=pcie.0,{BOUNCE}")]);
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
        add(&["-device", &format!("virtio-blk-pci,drive=drive{index},bus=pcie.0,{BOUNCE}")]);
    }
    if let Some(kernel) = kernel {
        arguments.extend(["-kernel".into(), kernel.image.clone().into()]);
        arguments.extend(["-initrd".into(), kernel.initrd.clone().into()]);
        arguments.extend(["-append".into(), kernel.append.clone().into()]);
    }
    arguments.extend(config.extra.iter().cloned());
    arguments
}

/// The domains besides node 0's, and how fast they are.
///
/// Where windows have no domain of their own, the host bridge is a generic port: Linux adds what HMAT says of the way to
/// it to what CDAT says of the device. Linux numbers the domains of CXL windows on from the last one with memory; a port
/// among those would pass for the window's memory. So the port comes after as many empty domains as there can be windows.
fn domains(config: &MachineConfig) -> Vec<String> {
    let local = Domain { latency_ns: Domain::LOCAL_LATENCY_NS, bandwidth_gib: BANDWIDTH };
    let mut speeds = vec![(0, local)];
    if config.domains.is_empty() {
        speeds.push((PORT_DOMAIN, Domain { latency_ns: PORT_LATENCY, bandwidth_gib: BANDWIDTH }));
    } else {
        speeds.extend((1..).zip(config.domains.iter().copied()));
    }
    let last = speeds.last().map_or(0, |&(domain, _)| domain);
    let mut numa: Vec<_> = (1..=last).map(|node| format!("node,nodeid={node},initiator=0")).collect();
    for (target, speed) in speeds {
        let path = format!("hmat-lb,initiator=0,target={target},hierarchy=memory");
        numa.push(format!("{path},data-type=access-latency,latency={}", speed.latency_ns));
        numa.push(format!("{path},data-type=access-bandwidth,bandwidth={}G", speed.bandwidth_gib));
    }
    // From one window to another the way is by node 0.
    let distances: Vec<_> = config.domains.iter().filter_map(|domain| domain.distance()).collect();
    for (node, &distance) in (1..).zip(&distances) {
        numa.push(format!("dist,src=0,dst={node},val={distance}"));
        for (other, &more) in (1..node).zip(&distances) {
            let sum = distance.saturating_add(more).min(FARTHEST);
            numa.push(format!("dist,src={other},dst={node},val={sum}"));
        }
    }
    numa
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
    fn a_window_with_a_domain_of_its_own_has_latency_bandwidth_and_distance_and_there_is_no_generic_port() {
        let mut config = config();
        assert!(text(&config, None).iter().any(|word| word.starts_with("acpi-generic-port,")));
        config.domains =
            vec![Domain { latency_ns: 180, bandwidth_gib: 24 }, Domain { latency_ns: 900, bandwidth_gib: 8 }];
        let words = text(&config, None);
        assert!(!words.iter().any(|word| word.starts_with("acpi-generic-port,")));
        let numa: Vec<_> = words.iter().filter(|word| word.contains("target=2") || word.starts_with("dist")).collect();
        let lb = "hmat-lb,initiator=0,target=2,hierarchy=memory,data-type=access";
        assert_eq!(
            numa,
            [
                &format!("{lb}-latency,latency=900"),
                &format!("{lb}-bandwidth,bandwidth=8G"),
                "dist,src=0,dst=1,val=20",
                "dist,src=0,dst=2,val=100",
                "dist,src=1,dst=2,val=120",
            ]
        );
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
