//! A mapping, and the system calls on it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::{self, NonNull};

use libc::{c_int, c_void};
use rustix::mm::{MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};

use super::numa::{self, Policy};
use super::protocol::Advice;
use crate::pattern::PAGE;

/// A pagemap entry: present, swapped out, and the bits of the frame number (Documentation/admin-guide/mm/pagemap.rst).
const PAGEMAP_PRESENT: u64 = 1 << 63;
const PAGEMAP_SWAP: u64 = 1 << 62;
const PAGEMAP_FRAME: u64 = (1 << 55) - 1;

/// Memory, anonymous or a file's, unmapped when dropped.
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
    /// No pages, too many, or `mmap` fails.
    pub fn new(pages: usize) -> io::Result<Self> {
        let bytes = pages.checked_mul(PAGE).filter(|&bytes| bytes > 0 && isize::try_from(bytes).is_ok());
        let bytes = bytes.ok_or_else(|| io::Error::other("map at least one page and no more than fit"))?;
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

    /// Maps a file's first pages shared, for reading and writing. Nobody else may write to it meanwhile.
    ///
    /// # Errors
    /// It cannot be opened, or not be mapped like this.
    pub fn shared(path: &Path, pages: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = pages.checked_mul(PAGE).filter(|&bytes| bytes > 0).ok_or_else(|| io::Error::other("map a page"))?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, &file, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        Ok(Self { base, pages })
    }

    /// Maps a file's first pages so that they are the page cache's until they are written. Those not cached yet are read in, and
    /// come from `node`.
    ///
    /// # Errors
    /// The file is shorter, or cannot be mapped; there is no such node.
    pub fn of_page_cache(path: &Path, pages: usize, node: u32) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = pages.checked_mul(PAGE).filter(|&bytes| bytes > 0).ok_or_else(|| io::Error::other("map a page"))?;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory.
        let base =
            unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE, &file, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        let region = Self { base, pages };
        // The page cache follows the policy of who reads, not that of the mapping.
        numa::set_mempolicy(Policy::Bind, &[node])?;
        let read = region.advise(0, pages, Advice::PopulateRead);
        numa::set_mempolicy(Policy::Default, &[])?;
        read.map(|()| region)
    }

    /// How many pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Where it is mapped.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// One page.
    ///
    /// # Panics
    /// The page lies outside, which is the caller's defect.
    pub fn page(&mut self, index: usize) -> &mut [u8; PAGE] {
        let at = self.start(index, 1);
        // SAFETY: the page lies within the mapping, which is readable and writable, and `self` is borrowed mutably.
        unsafe { &mut *at.cast::<[u8; PAGE]>() }
    }

    /// The first `pages` pages as bytes.
    ///
    /// # Panics
    /// There are not as many, which is the caller's defect.
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

    /// Sets the policy of pages, strictly. With `migrate`, pages that are elsewhere are moved, or the call fails.
    ///
    /// # Errors
    /// No such node, a policy this kernel has not, or pages that could not be moved.
    pub fn bind(&self, first: usize, pages: usize, policy: Policy, nodes: &[u32], migrate: bool) -> io::Result<()> {
        let start = self.start(first, pages);
        // SAFETY: the range lies within our mapping.
        unsafe { numa::mbind(start, pages * PAGE, policy, nodes, migrate) }
    }

    /// Sets the policy of pages to one node. Pages that are elsewhere are moved as far as that goes.
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
        // SAFETY: our own mapping, of which no reference is held.
        match unsafe { libc::mprotect(self.start(first, pages), pages * PAGE, access) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Asks for huge pages, or refuses them. A kernel without huge pages is fine with the refusal.
    ///
    /// # Errors
    /// Huge pages were asked for and the kernel has none.
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
    /// The kernel does not take it.
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
        // SAFETY: our own mapping, of which no reference is held: `page` borrows for its own time only.
        unsafe { madvise(self.start(first, pages), pages * PAGE, advice) }.map_err(io::Error::from)
    }

    /// The address of each page.
    ///
    /// # Panics
    /// There are not as many, which is the caller's defect.
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

    /// Moves pages to these nodes in turn, and tells what became of each: the node, or the negative error number.
    ///
    /// # Errors
    /// `move_pages` fails as a whole.
    pub fn move_pages(&self, first: usize, pages: usize, nodes: &[u32], each: impl FnMut(c_int)) -> io::Result<()> {
        if nodes.is_empty() {
            return Err(io::Error::other("give at least one node"));
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
                entry if entry & PAGEMAP_FRAME == 0 => Err(io::Error::other("run as root to see physical addresses")),
                entry => Ok(Some((entry & PAGEMAP_FRAME) * PAGE as u64)),
            })
            .collect()
    }

    /// Whether the page table has a page as swapped out, while it is still in memory.
    ///
    /// # Errors
    /// The kernel does not say.
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
        // SAFETY: the mapping is ours and nothing borrows from it any more. A failure would only leak it.
        let _: rustix::io::Result<()> = unsafe { munmap(self.base.as_ptr().cast(), self.pages * PAGE) };
    }
}
