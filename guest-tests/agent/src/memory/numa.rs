//! The system calls that set and query where pages are: `mbind`, `set_mempolicy`, `move_pages`, `migrate_pages`.

use std::io;
use std::ptr;

use cxl_cram_wire::memory::Policy;
use libc::{c_int, c_long, c_ulong, c_void};

/// include/uapi/linux/mempolicy.h.
const MPOL_MF_STRICT: c_int = 1 << 0;
const MPOL_MF_MOVE: c_int = 1 << 1;
/// The most nodes in a mask; Linux on x86 has no more.
const MAX_NODES: u32 = 1024;
/// Pages in one `move_pages` call.
const BATCH: usize = 4096;

fn mode(policy: Policy) -> c_long {
    match policy {
        Policy::Default => 0,
        Policy::Preferred => 1,
        Policy::Bind => 2,
        Policy::Interleave => 3,
        Policy::PreferredMany => 5,
        Policy::WeightedInterleave => 6,
    }
}

/// A set of nodes in the kernel's format.
struct Mask([c_ulong; MAX_NODES as usize / 64]);

impl Mask {
    fn new(nodes: &[u32]) -> io::Result<Self> {
        let mut mask = [0; MAX_NODES as usize / 64];
        for &node in nodes {
            let word = mask.get_mut(node as usize / 64);
            *word.ok_or_else(|| io::Error::other(format!("give nodes below {MAX_NODES}")))? |= 1 << (node % 64);
        }
        Ok(Self(mask))
    }

    /// The number of bits plus one, as the kernel expects it.
    const BITS: c_long = MAX_NODES as c_long + 1;
}

fn result(returned: c_long) -> io::Result<u64> {
    u64::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// Sets the policy of a range, strictly: with `migrate`, moves pages that do not follow it; otherwise they make the call fail.
///
/// # Errors
/// No such node, a policy this kernel has not, or pages that could not be moved.
///
/// # Safety
/// The range is a mapping of the caller's.
pub(super) unsafe fn mbind(
    start: *mut c_void,
    bytes: usize,
    policy: Policy,
    nodes: &[u32],
    migrate: bool,
) -> io::Result<()> {
    let flags = MPOL_MF_STRICT | if migrate { MPOL_MF_MOVE } else { 0 };
    // SAFETY: as the caller promises.
    unsafe { mbind_with(start, bytes, policy, nodes, flags) }
}

/// Binds a range to a node. Moves pages that are elsewhere, except those that cannot move.
///
/// # Errors
/// No such node.
///
/// # Safety
/// The range is a mapping of the caller's.
pub(super) unsafe fn mbind_loosely(start: *mut c_void, bytes: usize, node: u32) -> io::Result<()> {
    // SAFETY: as the caller promises.
    unsafe { mbind_with(start, bytes, Policy::Bind, &[node], MPOL_MF_MOVE) }
}

/// # Safety
/// The range is a mapping of the caller's.
unsafe fn mbind_with(start: *mut c_void, bytes: usize, policy: Policy, nodes: &[u32], flags: c_int) -> io::Result<()> {
    let mask = Mask::new(nodes)?;
    // SAFETY: a policy changes no content of the caller's range; the mask has the given number of words.
    result(unsafe {
        libc::syscall(libc::SYS_mbind, start, bytes, mode(policy), mask.0.as_ptr(), Mask::BITS, c_long::from(flags))
    })
    .map(drop)
}

/// Sets the policy of this thread, which applies to file pages.
///
/// # Errors
/// No such node, or a policy this kernel has not.
pub(super) fn set_mempolicy(policy: Policy, nodes: &[u32]) -> io::Result<()> {
    let mask = Mask::new(nodes)?;
    // SAFETY: the mask has the given number of words.
    result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode(policy), mask.0.as_ptr(), Mask::BITS) }).map(drop)
}

/// Queries the node of each page, or moves the pages to the nodes that `target` returns. Calls `each` with a page's node, or
/// with a negative error number if it is on none or was not moved.
///
/// # Errors
/// The call fails as a whole.
pub(super) fn move_pages(
    pages: &[*mut c_void],
    target: Option<&dyn Fn(usize) -> u32>,
    mut each: impl FnMut(c_int),
) -> io::Result<()> {
    for (batch, pages) in pages.chunks(BATCH).enumerate() {
        let mut status = vec![0 as c_int; pages.len()];
        let nodes: Option<Vec<c_int>> =
            target.map(|target| (0..pages.len()).map(|page| target(batch * BATCH + page).cast_signed()).collect());
        // SAFETY: all arrays have the given number of entries. The kernel only looks addresses up, and changes no content.
        result(unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0 as c_long,
                pages.len(),
                pages.as_ptr(),
                nodes.as_ref().map_or(ptr::null(), |nodes| nodes.as_ptr()),
                status.as_mut_ptr(),
                c_long::from(MPOL_MF_MOVE),
            )
        })?;
        status.into_iter().for_each(&mut each);
    }
    Ok(())
}

/// Moves all of this process's pages on some nodes to others. Returns how many could not be moved.
///
/// # Errors
/// No such node.
pub(super) fn migrate_pages(from: &[u32], to: &[u32]) -> io::Result<u64> {
    let (from, to) = (Mask::new(from)?, Mask::new(to)?);
    // SAFETY: the masks have the given number of words.
    result(unsafe { libc::syscall(libc::SYS_migrate_pages, 0 as c_long, Mask::BITS, from.0.as_ptr(), to.0.as_ptr()) })
}
