//! A mapping, and the system calls on it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::{self, NonNull};

use cxl_cram_wire::memory::{Advice, Policy};
use cxl_cram_wire::pattern::PAGE;
use libc::{c_int, c_void};
use rustix::mm::{MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};

use super::numa;

/// A pagemap entry: present, swapped out, and the bits of the frame number (Documentation/admin-guide/mm/pagemap.rst).
const PAGEMAP_PRESENT: u64 = 1 << 63;
const PAGEMAP_SWAP: u64 = 1 << 62;
const PAGEMAP_FRAME: u64 = (1 << 55) - 1;

/// Anonymous or file memory, unmapped when dropped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    pages: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Region {}

impl Region {
    /// Maps `pages` pages. Nothing is present yet.
    ///
    /// # Errors
    /// The number of pages is zero or too large, or `mmap` fails.
    pub fn new(pages: usize) -> io::Result<Self> {
        let bytes = pages.checked_mul(PAGE).filter(|&bytes| bytes > 0 && isize::try_from(bytes).is_ok());
        let bytes = bytes.ok_or_else(|| io::Error::other("the number of pages is zero or too large"))?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        Ok(Self { base, pages })
    }

    /// Maps pages that can only come from `node`, all present.
    ///
    /// # Errors
    /// As [`Self::new`], [`Self::bind`] and [`Self::advise`].
    pub fn on_node(pages: usize, node: u32) -> io::Result<Self> {
        let region = Self::new(pages)?;
        region.bind(0, pages, Policy::Bind, &[node], false)?;
        region.huge(false)?;
        region.advise(0, pages, Advice::Populate)?;
        Ok(region)
    }

    /// Maps a file's first pages shared, for reading and writing. No other program may write to the file meanwhile.
    ///
    /// # Errors
    /// The file cannot be opened, or cannot be mapped shared.
    pub fn shared(path: &Path, pages: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes =
            pages.checked_mul(PAGE).filter(|&bytes| bytes > 0).ok_or_else(|| io::Error::other("no page to map"))?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, &file, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        Ok(Self { base, pages })
    }

    /// Maps a file's first pages privately: they are the page cache's until written. Pages not cached yet are read in, and come
    /// from `node`.
    ///
    /// # Errors
    /// The file is shorter, or cannot be mapped; there is no such node.
    pub fn of_page_cache(path: &Path, pages: usize, node: u32) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes =
            pages.checked_mul(PAGE).filter(|&bytes| bytes > 0).ok_or_else(|| io::Error::other("no page to map"))?;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory.
        let base =
            unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE, &file, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        let region = Self { base, pages };
        // The page cache follows the policy of the reading thread, not of the mapping.
        numa::set_mempolicy(Policy::Bind, &[node])?;
        let read = region.advise(0, pages, Advice::PopulateRead);
        numa::set_mempolicy(Policy::Default, &[])?;
        read.map(|()| region)
    }

    /// The number of pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// The address of the mapping.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// One page.
    ///
    /// # Panics
    /// The page is outside the mapping, which is a bug of the caller.
    pub fn page(&mut self, index: usize) -> &mut [u8; PAGE] {
        let at = self.start(index, 1);
        // SAFETY: the page lies within the mapping, which is readable and writable, and `self` is borrowed mutably.
        unsafe { &mut *at.cast::<[u8; PAGE]>() }
    }

    /// The first `pages` pages as bytes.
    ///
    /// # Panics
    /// The mapping has fewer pages, which is a bug of the caller.
    pub fn bytes(&mut self, pages: usize) -> &mut [u8] {
        let at = self.start(0, pages).cast::<u8>();
        // SAFETY: the pages lie within the mapping, which is readable and writable, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(at, pages * PAGE) }
    }

    fn start(&self, first: usize, pages: usize) -> *mut c_void {
        assert!(first.checked_add(pages).is_some_and(|end| end <= self.pages), "pages outside the mapping");
        // SAFETY: checked to lie within the mapping.
        unsafe { self.base.as_ptr().add(first * PAGE) }.cast()
    }

    /// Sets the policy of pages, strictly. With `migrate`, moves pages that are elsewhere, or fails.
    ///
    /// # Errors
    /// No such node, a policy this kernel has not, or pages that could not be moved.
    pub fn bind(&self, first: usize, pages: usize, policy: Policy, nodes: &[u32], migrate: bool) -> io::Result<()> {
        let start = self.start(first, pages);
        // SAFETY: the range lies within our mapping.
        unsafe { numa::mbind(start, pages * PAGE, policy, nodes, migrate) }
    }

    /// Sets the policy of pages to one node. Moves pages that are elsewhere, except those that cannot move.
    ///
    /// # Errors
    /// No such node.
    pub fn bind_loosely(&self, first: usize, pages: usize, node: u32) -> io::Result<()> {
        // SAFETY: the range lies within our mapping.
        unsafe { numa::mbind_loosely(self.start(first, pages), pages * PAGE, node) }
    }

    /// Sets how pages may be used: `PROT_READ` and the like.
    ///
    /// # Errors
    /// `mprotect` fails.
    pub fn protect(&self, first: usize, pages: usize, access: c_int) -> io::Result<()> {
        // SAFETY: our own mapping, and no reference into it exists.
        match unsafe { libc::mprotect(self.start(first, pages), pages * PAGE, access) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Asks for huge pages, or rules them out, which a kernel without huge pages also accepts.
    ///
    /// # Errors
    /// The kernel has no huge pages, and they were asked for.
    pub fn huge(&self, huge: bool) -> io::Result<()> {
        use rustix::mm::Advice::{LinuxHugepage, LinuxNoHugepage};
        let advice = if huge { LinuxHugepage } else { LinuxNoHugepage };
        // SAFETY: our own mapping; the advice changes no content.
        let advised = unsafe { madvise(self.start(0, self.pages), self.pages * PAGE, advice) };
        if huge { Ok(advised?) } else { Ok(()) }
    }

    /// Locks all pages, which makes them present.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn lock(&self) -> io::Result<()> {
        // SAFETY: our own mapping; locking changes no content.
        unsafe { mlock(self.start(0, self.pages), self.pages * PAGE) }.map_err(io::Error::from)
    }

    /// Gives advice about pages.
    ///
    /// # Errors
    /// The kernel refuses the advice.
    pub fn advise(&self, first: usize, pages: usize, advice: Advice) -> io::Result<()> {
        use rustix::mm::Advice as Raw;
        let advice = match advice {
            Advice::DontNeed => Raw::LinuxDontNeed,
            Advice::PageOut => Raw::LinuxPageOut,
            Advice::Cold => Raw::LinuxCold,
            Advice::Populate => Raw::LinuxPopulateWrite,
            Advice::PopulateRead => Raw::LinuxPopulateRead,
            Advice::HwPoison => Raw::LinuxHwPoison,
            Advice::SoftOffline => Raw::LinuxSoftOffline,
        };
        // SAFETY: our own mapping, and no reference into it exists: `page` ties its borrow to `self`.
        unsafe { madvise(self.start(first, pages), pages * PAGE, advice) }.map_err(io::Error::from)
    }

    /// The address of each page.
    ///
    /// # Panics
    /// The mapping has fewer pages, which is a bug of the caller.
    pub fn addresses(&self, first: usize, pages: usize) -> Vec<*mut c_void> {
        (first..first + pages).map(|page| self.start(page, 1)).collect()
    }

    /// The node of each page, or the negative error number for a page that is on none.
    ///
    /// # Errors
    /// `move_pages` fails as a whole.
    pub fn nodes(&self, first: usize, pages: usize, each: impl FnMut(c_int)) -> io::Result<()> {
        numa::move_pages(&self.addresses(first, pages), None, each)
    }

    /// Moves pages to these nodes in turn, and reports for each page the node, or the negative error number.
    ///
    /// # Errors
    /// `move_pages` fails as a whole.
    pub fn move_pages(&self, first: usize, pages: usize, nodes: &[u32], each: impl FnMut(c_int)) -> io::Result<()> {
        if nodes.is_empty() {
            return Err(io::Error::other("no node given"));
        }
        numa::move_pages(&self.addresses(first, pages), Some(&|page| nodes[page % nodes.len()]), each)
    }

    /// Physical addresses, from `/proc/self/pagemap`.
    ///
    /// # Errors
    /// The file cannot be read, or hides the addresses from this user.
    pub fn physical(&self, first: usize, pages: usize) -> io::Result<Vec<Option<u64>>> {
        self.pagemap(first, pages)?
            .into_iter()
            .map(|entry| match entry {
                entry if entry & PAGEMAP_PRESENT == 0 => Ok(None),
                entry if entry & PAGEMAP_FRAME == 0 => {
                    Err(io::Error::other("physical addresses are hidden; run as root"))
                }
                entry => Ok(Some((entry & PAGEMAP_FRAME) * PAGE as u64)),
            })
            .collect()
    }

    /// Whether a page that is still in memory is swapped out by its page table entry.
    ///
    /// # Errors
    /// The pagemap or `mincore` fails.
    pub fn in_swap_cache(&self, page: usize) -> io::Result<bool> {
        let swapped = self.pagemap(page, 1)?.iter().all(|entry| entry & PAGEMAP_SWAP != 0);
        let mut resident = 0;
        // SAFETY: our own mapping, and a byte for its one page.
        match unsafe { libc::mincore(self.start(page, 1), PAGE, &mut resident) } {
            0 => Ok(swapped && resident & 1 != 0),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Entries of `/proc/self/pagemap`.
    fn pagemap(&self, first: usize, pages: usize) -> io::Result<Vec<u64>> {
        let mut entries = vec![0; pages * 8];
        let offset = self.start(first, pages) as u64 / PAGE as u64 * 8;
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, offset)?;
        let (entries, _) = entries.as_chunks::<8>();
        Ok(entries.iter().map(|&entry| u64::from_le_bytes(entry)).collect())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of it is left. A failure would only leak it.
        let _: rustix::io::Result<()> = unsafe { munmap(self.base.as_ptr().cast(), self.pages * PAGE) };
    }
}
