//! Assembles one device from its parts and serves it on one socket.
//!
//! [`Board`] is the device as the wire sees it: it routes each region access to the part that answers it. [`run`] is `serve` on the
//! command line: check the arguments, build from the medium outwards, serve until a signal, take everything down.

mod args;
mod check;
pub mod qemu;

use std::{io::Write, os::fd::BorrowedFd, sync::Arc};

use anyhow::{Context, Result};
use cxl_cram_kit::size::format_bytes;
use rustix::{
    io::Errno,
    mount::{MountPropagationFlags, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ERR_IRQ_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX,
};

use crate::{
    control::{self, DeviceCommands, Events},
    cxl::{Msix, Type3, Type3Config},
    guardian::{Guardian, GuardianConfig},
    hdm::{
        Window,
        fuse::{FuseConfig, FuseWindow},
        media::{Media, MediaConfig},
        recompressor::{Recompressor, RecompressorConfig},
        trap::TrapWindow,
    },
    sandbox::{self, User},
    store::Codec,
    vfio_user::{Backend, Interrupts, Region, Server, Stop},
};

const BAR0: u32 = VFIO_PCI_BAR0_REGION_INDEX;
const BAR2: u32 = VFIO_PCI_BAR2_REGION_INDEX;
const CONFIG: u32 = VFIO_PCI_CONFIG_REGION_INDEX;
const MSIX: u32 = VFIO_PCI_MSIX_IRQ_INDEX;

pub use self::args::{Sandbox, ServeArgs, WindowKind};

/// The device as the wire sees it.
pub struct Board {
    function: Arc<Type3>,
    media: Arc<Media>,
    window: Arc<dyn Window>,
}

impl Board {
    /// A function, its medium and the window onto it.
    pub fn new(function: Arc<Type3>, media: Arc<Media>, window: Arc<dyn Window>) -> Arc<Self> {
        Arc::new(Self { function, media, window })
    }

    /// Bytes of an access to BAR2 that lie inside the capacity; BAR2 is larger, and nothing is behind the rest.
    fn inside(&self, dpa: u64, length: usize) -> usize {
        let room = self.media.capacity().saturating_sub(dpa);
        length.min(usize::try_from(room).unwrap_or(usize::MAX))
    }
}

impl Backend for Board {
    fn regions(&self) -> [Region; 9] {
        let mut regions: [Region; 9] = Default::default();
        regions[BAR0 as usize] = Region { size: self.function.bar0_size(), access: true, mmap_len: 0 };
        let mmap_len = if self.window.mmap_fd().is_some() { self.media.capacity() } else { 0 };
        regions[BAR2 as usize] = Region { size: self.function.bar2_size(), access: true, mmap_len };
        regions[CONFIG as usize] = Region { size: Type3::CONFIG_SIZE, access: true, mmap_len: 0 };
        regions
    }

    fn irq_counts(&self) -> [u32; 5] {
        let mut counts = [0; 5];
        counts[MSIX as usize] = u32::from(Type3::VECTORS);
        // Never signalled, but QEMU warns where there is none.
        counts[VFIO_PCI_ERR_IRQ_INDEX as usize] = 1;
        counts
    }

    fn mmap_fd(&self, region: u32) -> Option<BorrowedFd<'_>> {
        if region != BAR2 {
            return None;
        }
        // Whoever maps it sees at once what is resident.
        self.media.wait_until_clear();
        self.window.mmap_fd()
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        tracing::trace!(region, offset = format_args!("{offset:#x}"), length = data.len(), "read");
        match region {
            CONFIG => self.function.config_read(offset, data),
            BAR0 => self.function.bar0_read(offset, data),
            BAR2 => {
                let (backed, rest) = data.split_at_mut(self.inside(offset, data.len()));
                if !backed.is_empty() {
                    self.media.wait_until_clear();
                    self.window.read(offset, backed);
                }
                // What PCI returns where nothing answers.
                rest.fill(0xff);
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        tracing::trace!(region, offset = format_args!("{offset:#x}"), length = data.len(), "write");
        match region {
            CONFIG => self.function.config_write(offset, data),
            BAR0 => self.function.bar0_write(offset, data),
            BAR2 => {
                let backed = &data[..self.inside(offset, data.len())];
                if !backed.is_empty() {
                    self.media.wait_until_clear();
                    self.window.write(offset, backed);
                }
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    fn reset(&self) {
        tracing::info!("conventional reset");
        self.function.reset();
    }

    fn irq_armed(&self, index: u32, vector: u32) {
        if index == MSIX
            && let Ok(vector) = u16::try_from(vector)
        {
            self.function.vector_armed(vector);
        }
    }

    /// A new client is a machine that was switched on: volatile memory is empty, registers are at reset.
    fn client_connected(&self) {
        // The reset stops a background operation before the medium is cleared under it.
        self.function.reset();
        self.media.power_cycle();
        self.function.power_on();
    }

    /// Registers fall back at once: an MSI-X enable bit left set would keep the next client from setting it. What the
    /// guest stored stays to be looked at until then.
    fn client_gone(&self) {
        self.function.reset();
    }
}

/// MSI-X vectors over the wire.
pub struct MsixWire(Arc<Interrupts>);

impl MsixWire {
    /// Raises vectors on these interrupts.
    pub fn new(interrupts: &Arc<Interrupts>) -> Self {
        Self(Arc::clone(interrupts))
    }
}

impl Msix for MsixWire {
    fn raise(&self, vector: u16) -> bool {
        self.0.raise(MSIX, u32::from(vector))
    }
}

/// Builds the device that the arguments describe and serves it until SIGTERM or SIGINT.
pub fn run(args: &ServeArgs) -> Result<()> {
    args.check()?;
    keep_mounts_private();
    let stop = Stop::new().context("cannot make an event to stop by")?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let stop = stop.clone();
        // SAFETY: `trigger` only writes to an eventfd, which is async-signal-safe.
        unsafe { signal_hook::low_level::register(signal, move || stop.trigger()) }.context("cannot catch signals")?;
    }

    // Sockets first: a path that is in use is reported before anything is mounted.
    let mut server = Server::bind(&args.socket)?;
    let mut control = args.control.as_deref().map(control::Server::bind).transpose()?;
    if let Some(user) = args.user {
        give_sockets(args, user)?;
    }

    let media = Media::new(&MediaConfig {
        capacity: args.capacity,
        physical: args.physical(),
        codec: args.codec,
        watermarks: args.watermarks(),
    })?;
    // The guardian starts before rights are given up, and whatever serves the guest after that.
    let guardian = GuardianConfig {
        sockets: [Some(&args.socket), args.control.as_ref()].into_iter().flatten().cloned().collect(),
        unconfined: args.sandbox == Sandbox::Off,
    };
    let (mounted, _guardian) = match args.window {
        WindowKind::Trap => (None, Some(Guardian::start(None, &guardian).context("cannot start the guardian")?)),
        WindowKind::Fuse => (Some(FuseWindow::mount(&fuse_config(args, guardian), Arc::clone(&media))?), None),
    };
    server.leave_to_guardian();
    if let Some(control) = &mut control {
        control.leave_to_guardian();
    }
    // Read, and the working directory asked for, while files can be.
    let cdat = args.table()?;
    let ready = ready_line(args);
    give_up_rights(args)?;
    let window: Arc<dyn Window> = match mounted {
        Some(mounted) => mounted.serve()?,
        None => TrapWindow::new(Arc::clone(&media)),
    };
    let interrupts = Arc::new(Interrupts::new());
    let msix = Arc::new(MsixWire::new(&interrupts));
    let config = Type3Config { serial: args.serial, cdat: Some(cdat), mailbox_payload: args.mailbox_payload };
    let function = Type3::new(&config, Arc::clone(&media), msix);
    let board = Board::new(Arc::clone(&function), Arc::clone(&media), window);

    let commands = DeviceCommands {
        media: Arc::clone(&media),
        injector: Arc::clone(&function) as _,
        interrupts: Arc::clone(&interrupts),
        stop: stop.clone(),
        codec: args.codec,
        window: args.window.name(),
    };
    let events = Events::new().context("cannot make an event for the control socket")?;
    media.add_listener({
        let events = events.clone();
        move |event| events.media(event)
    });

    // Taken down when this returns, before the window and the medium.
    let _recompressor = match args.codec {
        Codec::Adaptive(_) => {
            let mut config = RecompressorConfig::default();
            config.cpu_percent = args.recompress_cpu.unwrap_or(config.cpu_percent);
            Some(Recompressor::start(&media, &config).context("cannot start the thread that recompresses")?)
        }
        Codec::Lz4 | Codec::Zstd(_) => None,
    };

    std::thread::scope(|scope| {
        let control = control.as_ref().map(|control| {
            let serve = || control.run(&commands, &events, &stop);
            std::thread::Builder::new().name("control".into()).spawn_scoped(scope, serve)
        });
        let control = control.transpose().context("cannot start the thread of the control socket")?;
        // Whatever ends the wire also ends the control socket's thread.
        let wire_ended = stop.on_drop();
        // A reader that has gone away is no reason to stop serving.
        let _ = writeln!(std::io::stdout(), "{ready}");
        let served = server.run(&*board, &interrupts, &stop).context("the socket failed");
        // So that the window ends on this thread, and is unmounted before the process ends.
        media.wait_until_clear();
        drop(wire_ended);
        match control.map(|thread| thread.join()) {
            Some(Ok(controlled)) => served.and(controlled.context("the control socket failed")),
            _ => served,
        }
    })
}

fn fuse_config(args: &ServeArgs, guardian: GuardianConfig) -> FuseConfig {
    FuseConfig {
        cache_bytes: args.cache,
        flush_interval: args.flush_interval(),
        readahead: args.readahead,
        owner: args.user,
        guardian,
        ..FuseConfig::default()
    }
}

/// Makes the sockets this user's, who has to connect to them.
fn give_sockets(args: &ServeArgs, user: User) -> Result<()> {
    for path in [Some(&args.socket), args.control.as_ref()].into_iter().flatten() {
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))
            .with_context(|| format!("cannot give {} to user {user}; --user needs root", path.display()))?;
    }
    Ok(())
}

/// From here on this thread, and every thread it starts, can do nothing but serve.
fn give_up_rights(args: &ServeArgs) -> Result<()> {
    if let Some(user) = args.user {
        user.assume()?;
    }
    if args.sandbox == Sandbox::On
        && let Some(warning) = sandbox::enter()?.warning()
    {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Gives this process a mount namespace of its own, if it is permitted to: the window's mount then disappears with the
/// process, however that ends. Without the permission, a server that is killed leaves a dead mount, which the next one removes.
fn keep_mounts_private() {
    // SAFETY: only the mount namespace is unshared, no file descriptors; and no other thread runs yet.
    let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNS) };
    let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    if let Err(error) = unshared.and_then(|()| mount_change("/", private)) {
        tracing::debug!(%error, "no mount namespace");
    }
}

/// The ready line, with the arguments to paste into QEMU's command line.
fn ready_line(args: &ServeArgs) -> String {
    let socket = std::path::absolute(&args.socket).unwrap_or_else(|_| args.socket.clone());
    let device = qemu::vfio_user_pci("rp0", &socket);
    format!(
        "ready: {} promised, {} of media; attach with: -device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1 \
         -device cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2 -device '{device}'",
        format_bytes(args.capacity),
        format_bytes(args.physical()),
    )
}
