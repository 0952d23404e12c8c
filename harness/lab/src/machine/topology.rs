//! Builds QEMU's arguments.
//!
//! `q35,cxl=on` without `cxl-fmw`: QEMU then describes only the CXL host bridge, and the window over the device's BAR
//! comes from our own CEDT. Guest memory is a shared memfd, because the device is another process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cxl_cram_device::serve::qemu::vfio_user_pci;
use cxl_cram_wire::protocol::PORT_NAME;
use serde_json::json;

use super::config::{Accel, Domain, MAX_DEVICES, MachineConfig};

/// The bus number of the CXL host bridge, and its ACPI `_UID`.
pub const HOST_BRIDGE_BUS: u8 = 12;
/// The slot number of the first root port.
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
    /// The sockets in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self { qmp: directory.join("qmp.sock"), agent: directory.join("agent.sock") }
    }
}

/// A kernel for QEMU to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// A bzImage.
    pub image: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub append: String,
    /// Host port on which QEMU waits for a debugger before the guest's first instruction.
    pub debugger: Option<u16>,
}

/// HMAT values for node 0's memory and for the path to the host bridge, as in a typical server with CXL: nanoseconds and
/// GiB/s.
const PORT_DOMAIN: usize = MAX_DEVICES + 1;
const PORT_LATENCY: u32 = 40;
const BANDWIDTH: u32 = 64;
/// The longest distance in a SLIT; 255 means unreachable.
const FARTHEST: u8 = 254;

/// QEMU's devices access a window, like any BAR of another device, through bounce buffers. The default of one page is less
/// than one request, and even 64 MiB is less than a disk gets to swap out at once: QEMU would mark the device broken, and
/// the guest's driver would wait forever. So this is the option's maximum; a disk has at most 254 MiB in flight for each
/// guest processor. The limit belongs to the PCI function, and virtio obeys it only with `iommu_platform`.
const BOUNCE: &str = "disable-legacy=on,iommu_platform=on,x-max-bounce-buffer-size=4095M";

/// The monitor's identifier of a device's root port.
pub fn root_port(index: usize) -> String {
    format!("rp{index}")
}

/// The arguments that open the monitor.
pub fn monitor(sockets: &Sockets) -> [String; 2] {
    ["-qmp".into(), format!("unix:{}", listen(&sockets.qmp))]
}

/// The machine's arguments, without the program. The guest's console is QEMU's standard output.
pub fn arguments(config: &MachineConfig, sockets: &Sockets, kernel: Option<&Kernel>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    let memory = config.memory.to_string();

    add(&["-nodefaults", "-no-user-config", "-display", "none"]);
    add(&["-M", "q35,cxl=on,hmat=on"]);
    let (accel, model) = match config.accel {
        Accel::Kvm => ("kvm", "host"),
        // With fast string instructions, Linux copies and clears pages by `rep movsb`, which TCG executes byte by byte.
        Accel::Tcg => ("tcg,thread=multi", "max,erms=off,fsrm=off"),
    };
    // On AMD processors, Linux survives a machine check only with features that QEMU's processors lack.
    let vendor = if config.machine_checks { ",vendor=GenuineIntel" } else { "" };
    let hidden = if config.hidden_hypervisor { ",hypervisor=off" } else { "" };
    add(&["-accel", accel, "-cpu", &format!("{model}{vendor}{hidden}")]);
    add(&["-smp", &config.processors.to_string(), "-m", &format!("{memory}B")]);
    add(&["-object", &format!("memory-backend-memfd,id=ram,size={memory},share=on")]);
    // An explicit node makes QEMU describe proximity domains. Without them, Linux creates no nodes from the CEDT.
    add(&["-numa", &format!("node,nodeid=0,memdev=ram,cpus=0-{}", config.processors.saturating_sub(1))]);
    arguments.extend(domains(config).into_iter().flat_map(|numa| ["-numa".into(), numa.into()]));
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    if config.domains.is_empty() {
        add(&["-object", &format!("acpi-generic-port,id=port,pci-bus=cxl,node={PORT_DOMAIN}")]);
    }
    if let Some(firmware) = &config.firmware {
        add(&["-bios", &firmware.to_string_lossy()]);
    }
    if !config.restarts {
        add(&["-no-reboot"]);
    }
    add(&["-serial", "stdio"]);

    // By default, a host bridge with one port has no decoders. Without them, Linux creates only one region below it.
    add(&["-device", &format!("pxb-cxl,id=cxl,bus=pcie.0,bus_nr={HOST_BRIDGE_BUS},hdm_for_passthrough=on")]);
    for (index, device) in config.devices.iter().enumerate() {
        let port = root_port(index);
        let slot = FIRST_SLOT + index;
        add(&["-device", &format!("cxl-rp,id={port},bus=cxl,port={index},chassis=0,slot={slot}")]);
        let mut function = vfio_user_pci(&port, &device.socket);
        function["id"] = json!(format!("cxl-mem{index}"));
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
        if let Some(port) = kernel.debugger {
            arguments.extend(["-S".into(), "-gdb".into(), format!("tcp:127.0.0.1:{port}").into()]);
        }
    }
    arguments.extend(config.extra.iter().cloned());
    arguments
}

/// The domains besides node 0's, and their performance.
///
/// If windows have no domains of their own, the host bridge is a generic port: Linux adds the HMAT's values for the path
/// to it and the CDAT's for the device. Linux numbers the domains of CXL windows from the last domain with memory on, and
/// would take a port with such a number for a window. So as many empty domains as there can be windows precede the port.
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
    // The path from one window to another leads through node 0.
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

/// The value of a socket option: QEMU listens without waiting. A comma in the path is doubled.
fn listen(path: &Path) -> String {
    format!("{},server=on,wait=off", path.to_string_lossy().replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use super::*;
    use crate::machine::config::{Device, Drive};

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
    fn every_device_has_a_root_port_and_qemu_makes_no_window() {
        let words = text(&config(), None);
        let ports: Vec<_> = words.iter().filter(|word| word.starts_with("cxl-rp,")).collect();
        assert_eq!(ports.len(), 2);
        assert!(ports[1].contains("id=rp1") && ports[1].contains("slot=3"));
        let functions: Vec<serde_json::Value> =
            words.iter().filter(|word| word.starts_with('{')).map(|word| serde_json::from_str(word).unwrap()).collect();
        assert_eq!(functions[0]["socket"]["path"], "/s/a\"b");
        assert_eq!(functions[1]["bus"], "rp1");
        let patient = |function: &serde_json::Value| function["x-msg-timeout"].as_u64() >= Some(30 * 60 * 1000);
        assert!(functions.iter().all(patient), "a device in a debugger is not given up: {functions:?}");
        assert!(!words.iter().any(|word| word.contains("cxl-fmw")));
        assert!(words.iter().any(|word| word.contains("path=/run/x,,y/agent.sock")));
    }

    #[test]
    fn the_hypervisor_is_hidden_only_for_a_kernel_that_minds_it() {
        let model = |config: &MachineConfig| {
            let words = text(config, None);
            words[words.iter().position(|word| word == "-cpu").unwrap() + 1].clone()
        };
        assert!(!model(&config()).contains("hypervisor"));
        for accel in [Accel::Kvm, Accel::Tcg] {
            let hidden = MachineConfig { hidden_hypervisor: true, accel, ..config() };
            assert!(model(&hidden).ends_with(",hypervisor=off"), "{accel:?}");
        }
    }

    #[test]
    fn a_window_with_its_own_domain_has_hmat_and_slit_entries_and_no_generic_port() {
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
        let kernel = Kernel { image: "/k".into(), initrd: "/i".into(), append: "console=ttyS0".into(), debugger: None };
        let (without, with) = (text(&config, None), text(&config, Some(&kernel)));
        assert_eq!(with[..without.len()], without);
        assert_eq!(with[without.len()..], ["-kernel", "/k", "-initrd", "/i", "-append", "console=ttyS0"]);
        let debugged = text(&config, Some(&Kernel { debugger: Some(1234), ..kernel }));
        assert_eq!(debugged[with.len()..], ["-S", "-gdb", "tcp:127.0.0.1:1234"]);
    }
}
