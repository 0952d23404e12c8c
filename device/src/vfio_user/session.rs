//! One client, from VERSION to its end: each command checked and carried out.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use tracing::debug;
use vfio_bindings::bindings::vfio::{VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET};

use super::{
    Backend, Interrupts, Region,
    connection::{Connection, Ended, Message},
    descriptors::Descriptor,
    dma::DmaTable,
    message::{Command, Fields, HEADER_LEN, PutFields},
    regions::{self, Access},
    version::{self, Agreed},
};

/// Bytes of `struct vfio_device_info` up to and with `num_irqs`.
const DEVICE_INFO_LEN: u32 = 16;

/// The state of one client. Dropping it releases everything that the client passed to us, then notifies the backend.
pub(super) struct Session<'a> {
    backend: &'a dyn Backend,
    interrupts: &'a Interrupts,
    regions: [Region; 9],
    dma: DmaTable,
    /// `None` until VERSION has been answered.
    agreed: Option<Agreed>,
}

impl<'a> Session<'a> {
    pub(super) fn new(backend: &'a dyn Backend, interrupts: &'a Interrupts) -> Self {
        Self { backend, interrupts, regions: backend.regions(), dma: DmaTable::default(), agreed: None }
    }

    /// Serves the client until its connection ends. Returns why it ended.
    pub(super) fn serve(&mut self, connection: &Connection<'_>) -> Ended {
        loop {
            let agreed = self.agreed.is_some();
            if let Err(ended) = connection.receive(agreed).and_then(|message| self.answer(connection, message)) {
                return ended;
            }
        }
    }

    fn answer(&mut self, connection: &Connection<'_>, message: Message) -> Result<(), Ended> {
        let Message { header, payload, fds } = message;
        let mut reply = vec![0; HEADER_LEN];
        let outcome = fds.and_then(|fds| {
            let command = header.command().ok_or(Errno::NOTSUP)?;
            self.carry_out(command, &payload, fds, &mut reply)
        });
        if let Err(errno) = outcome {
            debug!(number = header.number, %errno, "refused a message");
        }
        if !header.wants_reply() {
            return Ok(());
        }
        match outcome {
            Ok(fd) => {
                header.finish_reply(&mut reply);
                connection.send(&reply, fd)
            }
            Err(errno) => connection.send(&header.error_reply(errno), None),
        }
    }

    /// Appends the payload of the reply to `out`; returns the descriptor that goes with it. What is left of `fds` is
    /// closed on return.
    fn carry_out(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: Vec<Descriptor>,
        out: &mut Vec<u8>,
    ) -> Result<Option<BorrowedFd<'a>>, Errno> {
        let Some(agreed) = self.agreed else {
            return if command == Command::Version { self.version(payload, out) } else { Err(Errno::INVAL) };
        };
        match command {
            Command::Version => return Err(Errno::INVAL),
            Command::DmaMap => self.dma.map(payload, fds.len())?,
            Command::DmaUnmap => self.dma.unmap(payload, out)?,
            Command::DeviceGetInfo => self.device_info(payload, out)?,
            Command::DeviceGetRegionInfo => {
                return Ok(regions::info(&self.regions, payload, out)?.and_then(|index| self.backend.mmap_fd(index)));
            }
            Command::DeviceGetRegionIoFds => regions::io_fds(&self.regions, payload, out)?,
            Command::DeviceGetIrqInfo => self.interrupts.info(payload, out)?,
            Command::DeviceSetIrqs => self.set_irqs(payload, fds)?,
            Command::RegionRead => self.read(payload, agreed, out)?,
            Command::RegionWrite => self.write(payload, agreed, out)?,
            Command::DeviceReset if payload.is_empty() => self.backend.reset(),
            Command::DeviceReset => return Err(Errno::INVAL),
        }
        Ok(None)
    }

    fn version(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<Option<BorrowedFd<'a>>, Errno> {
        let agreed = version::negotiate(payload, out)?;
        for (index, region) in (0..).zip(&mut self.regions) {
            // What cannot be mapped in the end must not be offered.
            if region.mmap_len > 0 && (!agreed.takes_fds || self.backend.mmap_fd(index).is_none()) {
                region.mmap_len = 0;
            }
        }
        self.interrupts.open(&self.backend.irq_counts());
        self.agreed = Some(agreed);
        self.backend.client_connected();
        Ok(None)
    }

    fn device_info(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
        if payload.len() < DEVICE_INFO_LEN as usize {
            return Err(Errno::INVAL);
        }
        Fields::new(payload).argsz(DEVICE_INFO_LEN)?;
        out.put_u32(DEVICE_INFO_LEN);
        out.put_u32(VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
        out.put_u32(self.regions.len() as u32);
        out.put_u32(self.backend.irq_counts().len() as u32);
        Ok(())
    }

    fn set_irqs(&self, payload: &[u8], fds: Vec<Descriptor>) -> Result<(), Errno> {
        let armed = self.interrupts.set(payload, fds)?;
        for vector in armed.vectors {
            self.backend.irq_armed(armed.index, vector);
        }
        Ok(())
    }

    fn read(&self, payload: &[u8], agreed: Agreed, out: &mut Vec<u8>) -> Result<(), Errno> {
        let access = Access::parse(&self.regions, payload, agreed.max_data_xfer)?;
        if !access.data.is_empty() {
            return Err(Errno::INVAL);
        }
        access.put(out);
        let begin = out.len();
        out.resize(begin + access.count as usize, 0);
        self.backend.read(access.region, access.offset, &mut out[begin..])
    }

    fn write(&self, payload: &[u8], agreed: Agreed, out: &mut Vec<u8>) -> Result<(), Errno> {
        let access = Access::parse(&self.regions, payload, agreed.max_data_xfer)?;
        if access.data.len() != access.count as usize {
            return Err(Errno::INVAL);
        }
        self.backend.write(access.region, access.offset, access.data)?;
        access.put(out);
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.agreed.is_some() {
            self.interrupts.close();
            self.dma = DmaTable::default();
            self.backend.client_gone();
        }
    }
}
