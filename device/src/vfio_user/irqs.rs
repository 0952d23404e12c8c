//! GET_IRQ_INFO and SET_IRQS: which eventfd each vector signals, and which vectors are masked.

use std::{collections::BTreeMap, ops::Range, os::fd::OwnedFd};

use parking_lot::Mutex;
use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_MASKABLE, VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_BOOL, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_PCI_MSIX_IRQ_INDEX,
};

use super::{
    descriptors::Descriptor,
    message::{Fields, PutFields},
};

/// Bytes of `struct vfio_irq_info`.
const INFO_LEN: u32 = 16;
/// Bytes of `struct vfio_irq_set` without its data.
const SET_LEN: u32 = 20;

/// The interrupts of the client that is connected now. Created before the server and shared with every component that raises
/// interrupts.
#[derive(Debug, Default)]
pub struct Interrupts {
    /// Vectors of each index; empty while there is no client.
    indices: Mutex<Vec<Vec<Vector>>>,
    /// How often each index and vector was signalled, over all clients.
    signalled: Mutex<BTreeMap<(u32, u32), u64>>,
}

#[derive(Debug, Default)]
struct Vector {
    eventfd: Option<OwnedFd>,
    masked: bool,
}

impl Vector {
    fn is_armed(&self) -> bool {
        self.eventfd.is_some() && !self.masked
    }

    /// True if the client will see an edge.
    fn signal(&self) -> bool {
        let Some(eventfd) = self.eventfd.as_ref().filter(|_| !self.masked) else { return false };
        match rustix::io::write(eventfd, &1u64.to_ne_bytes()) {
            // EAGAIN: the counter is full, so an edge the client has not taken yet is there already.
            Ok(_) | Err(Errno::AGAIN) => true,
            Err(_) => false,
        }
    }
}

impl Interrupts {
    /// Interrupts without a client.
    pub fn new() -> Self {
        Self::default()
    }

    /// Signals a vector once. `index` is a VFIO PCI interrupt index (2 is MSI-X). Returns false if the vector
    /// is not armed: no client, no eventfd, or masked. Never blocks.
    pub fn raise(&self, index: u32, vector: u32) -> bool {
        let indices = self.indices.lock();
        let vectors = usize::try_from(index).ok().and_then(|index| indices.get(index));
        let heard = usize::try_from(vector).ok().and_then(|vector| vectors?.get(vector)).is_some_and(Vector::signal);
        if heard {
            *self.signalled.lock().entry((index, vector)).or_default() += 1;
        }
        heard
    }

    /// The vectors of an index that reached a client since the start, and how often.
    pub fn signalled(&self, index: u32) -> BTreeMap<u32, u64> {
        let signalled = self.signalled.lock();
        signalled.range((index, 0)..=(index, u32::MAX)).map(|((_, vector), count)| (*vector, *count)).collect()
    }

    /// [`Self::signalled`] of MSI-X.
    pub fn msix_signalled(&self) -> BTreeMap<u32, u64> {
        self.signalled(VFIO_PCI_MSIX_IRQ_INDEX)
    }

    /// Whether there is a client that has negotiated its version.
    pub fn has_client(&self) -> bool {
        !self.indices.lock().is_empty()
    }

    /// A client has come: this many vectors of each index, none armed.
    pub(super) fn open(&self, counts: &[u32]) {
        let vectors = |count: &u32| (0..*count).map(|_| Vector::default()).collect();
        *self.indices.lock() = counts.iter().map(vectors).collect();
    }

    /// The client has gone: its eventfds are closed.
    pub(super) fn close(&self) {
        self.indices.lock().clear();
    }

    /// GET_IRQ_INFO.
    pub(super) fn info(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
        let mut fields = Fields::new(payload);
        fields.argsz(INFO_LEN)?;
        let _flags = fields.u32()?;
        let index = fields.u32()?;
        let place = usize::try_from(index).map_err(|_| Errno::INVAL)?;
        let count = self.indices.lock().get(place).ok_or(Errno::INVAL)?.len();
        out.put_u32(INFO_LEN);
        out.put_u32(if count > 0 { VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE } else { 0 });
        out.put_u32(index);
        out.put_u32(u32::try_from(count).map_err(|_| Errno::INVAL)?);
        Ok(())
    }

    /// SET_IRQS: all or nothing. The reply is empty; returned are the vectors that the client has begun to listen to.
    pub(super) fn set(&self, payload: &[u8], fds: Vec<Descriptor>) -> Result<Armed, Errno> {
        let request = Request::parse(payload, fds)?;
        let mut indices = self.indices.lock();
        let place = usize::try_from(request.index).map_err(|_| Errno::INVAL)?;
        let vectors = indices.get_mut(place).ok_or(Errno::INVAL)?;
        request.apply(vectors)
    }
}

/// Vectors that have become armed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Armed {
    pub(super) index: u32,
    pub(super) vectors: Vec<u32>,
}

/// A SET_IRQS message whose form is right; its range is not yet checked.
struct Request {
    index: u32,
    start: u32,
    count: u32,
    operation: Operation,
}

enum Operation {
    /// No data, TRIGGER, count 0: forget every eventfd of the index.
    DisableAll,
    Mask(Selection),
    Unmask(Selection),
    /// Signal as if the device had: the protocol's loopback test.
    Trigger(Selection),
    /// One entry a vector, `None` to de-assign.
    SetEventfds(Vec<Option<OwnedFd>>),
}

/// Which vectors of the range are meant.
enum Selection {
    All,
    /// One entry a vector.
    Some(Vec<bool>),
}

impl Selection {
    fn has(&self, place: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(chosen) => chosen.get(place).copied().unwrap_or(false),
        }
    }
}

impl Request {
    fn parse(payload: &[u8], fds: Vec<Descriptor>) -> Result<Self, Errno> {
        let mut fields = Fields::new(payload);
        fields.argsz(SET_LEN)?;
        let flags = fields.u32()?;
        let index = fields.u32()?;
        let start = fields.u32()?;
        let count = fields.u32()?;
        let data = fields.rest();

        let data_type = flags & (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_DATA_EVENTFD);
        let action = flags ^ data_type;
        let selection = match data_type {
            VFIO_IRQ_SET_DATA_NONE if data.is_empty() && fds.is_empty() => Selection::All,
            VFIO_IRQ_SET_DATA_BOOL if Ok(data.len()) == usize::try_from(count) && fds.is_empty() => {
                Selection::Some(data.iter().map(|byte| *byte != 0).collect())
            }
            VFIO_IRQ_SET_DATA_EVENTFD => {
                // An eventfd that masks or unmasks is for INTx that masks itself, which GET_IRQ_INFO does not offer.
                let operation = match action {
                    VFIO_IRQ_SET_ACTION_TRIGGER => Operation::SetEventfds(eventfds(count, data, fds)?),
                    VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK => return Err(Errno::NOTSUP),
                    _ => return Err(Errno::INVAL),
                };
                return Ok(Self { index, start, count, operation });
            }
            _ => return Err(Errno::INVAL),
        };
        let disable_all = data_type == VFIO_IRQ_SET_DATA_NONE && start == 0 && count == 0;
        let operation = match action {
            VFIO_IRQ_SET_ACTION_TRIGGER if disable_all => Operation::DisableAll,
            VFIO_IRQ_SET_ACTION_TRIGGER => Operation::Trigger(selection),
            VFIO_IRQ_SET_ACTION_MASK => Operation::Mask(selection),
            VFIO_IRQ_SET_ACTION_UNMASK => Operation::Unmask(selection),
            _ => return Err(Errno::INVAL),
        };
        Ok(Self { index, start, count, operation })
    }

    /// The vectors the message is about, which must exist.
    fn range(&self, vectors: &[Vector]) -> Result<Range<usize>, Errno> {
        let end = self.start.checked_add(self.count).ok_or(Errno::INVAL)?;
        let range = self.start as usize..end as usize;
        if range.is_empty() || range.end > vectors.len() { Err(Errno::INVAL) } else { Ok(range) }
    }

    fn apply(self, vectors: &mut [Vector]) -> Result<Armed, Errno> {
        if let Operation::DisableAll = self.operation {
            vectors.fill_with(Vector::default);
            return Ok(Armed::default());
        }
        let range = self.range(vectors)?;
        let (first, chosen) = (self.start, &mut vectors[range]);
        let mut armed = Armed { index: self.index, vectors: Vec::new() };
        match self.operation {
            Operation::DisableAll => {}
            Operation::Trigger(selection) => {
                for (_, vector) in chosen.iter().enumerate().filter(|(place, _)| selection.has(*place)) {
                    vector.signal();
                }
            }
            Operation::Mask(selection) => {
                for (_, vector) in chosen.iter_mut().enumerate().filter(|(place, _)| selection.has(*place)) {
                    vector.masked = true;
                }
            }
            Operation::Unmask(selection) => {
                for (place, vector) in chosen.iter_mut().enumerate().filter(|(place, _)| selection.has(*place)) {
                    let was_masked = std::mem::replace(&mut vector.masked, false);
                    if was_masked && vector.is_armed() {
                        armed.vectors.push(first + place as u32);
                    }
                }
            }
            Operation::SetEventfds(eventfds) => {
                for ((place, vector), eventfd) in chosen.iter_mut().enumerate().zip(eventfds) {
                    vector.eventfd = eventfd;
                    if vector.is_armed() {
                        armed.vectors.push(first + place as u32);
                    }
                }
            }
        }
        Ok(armed)
    }
}

/// Pairs vectors with descriptors. Without data, as QEMU sends it: a descriptor for every vector, or none at all to
/// de-assign them. With data: one `s32` a vector, -1 to de-assign, anything else for the next descriptor.
fn eventfds(count: u32, data: &[u8], fds: Vec<Descriptor>) -> Result<Vec<Option<OwnedFd>>, Errno> {
    let fds = fds.into_iter().map(Descriptor::eventfd).collect::<Result<Vec<OwnedFd>, Errno>>()?;
    // A range this long exists nowhere; it must not size an allocation either.
    let count = usize::try_from(count).ok().filter(|count| *count <= MAX_VECTORS).ok_or(Errno::INVAL)?;
    if data.is_empty() {
        return match fds.len() {
            0 => Ok((0..count).map(|_| None).collect()),
            sent if sent == count => Ok(fds.into_iter().map(Some).collect()),
            _ => Err(Errno::INVAL),
        };
    }
    let (entries, rest) = data.as_chunks::<4>();
    let wanted = entries.iter().filter(|entry| i32::from_ne_bytes(**entry) != -1).count();
    if !rest.is_empty() || entries.len() != count || wanted != fds.len() {
        return Err(Errno::INVAL);
    }
    let mut fds = fds.into_iter();
    Ok(entries.iter().map(|entry| if i32::from_ne_bytes(*entry) == -1 { None } else { fds.next() }).collect())
}

/// Vectors an index can have at most: MSI-X ends at 2048.
const MAX_VECTORS: usize = 2048;
