//! The `memory` program's orders and answers: JSON, one on each line.

use serde::{Deserialize, Serialize};

use crate::pattern::{Pattern, Verdict};
use crate::protocol::Failure;

/// One order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by the caller, and repeated in the answer.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub task: Task,
}

/// Pages of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// From [`Done::Mapped`].
    pub map: u64,
    /// The first page.
    #[serde(default)]
    pub first: u64,
    /// The number of pages; to the end of the mapping if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<u64>,
}

impl Range {
    /// All of a mapping.
    pub fn all(map: u64) -> Self {
        Self { map, first: 0, pages: None }
    }

    /// Some pages of a mapping.
    pub fn pages(map: u64, first: u64, pages: u64) -> Self {
        Self { map, first, pages: Some(pages) }
    }
}

/// The orders of the `memory` program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Maps anonymous memory. Answered with [`Done::Mapped`].
    Map {
        /// A multiple of 4096.
        bytes: u64,
        /// Strictly from this node; from any node if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<u32>,
        /// Fault every page in at once, for writing.
        #[serde(default)]
        populate: bool,
        /// Ask for huge pages. Otherwise they are ruled out, so that counts are in pages of 4096 bytes.
        #[serde(default)]
        huge: bool,
        /// Lock the pages. Locked pages can still migrate.
        #[serde(default)]
        locked: bool,
    },
    /// Maps the first pages of a file, from the page cache until they are written. Answered with [`Done::Mapped`].
    MapCached {
        /// Absolute path.
        path: String,
        /// A multiple of 4096.
        bytes: u64,
        /// The node for pages that are not cached yet.
        node: u32,
    },
    /// Maps the first pages of a file shared, so that writing writes it: a device-dax device. Answered with
    /// [`Done::Mapped`].
    MapShared {
        /// Absolute path.
        path: String,
        /// A multiple of the file's mapping granularity: 2 MiB for device-dax.
        bytes: u64,
    },
    /// Fills pages. Answered with [`Done::Took`].
    Fill {
        /// Which pages.
        range: Range,
        /// With what.
        #[serde(flatten)]
        pattern: Pattern,
    },
    /// Compares pages with the pattern. Answered with [`Done::Verified`].
    Verify {
        /// Which pages.
        range: Range,
        /// What they should hold.
        #[serde(flatten)]
        pattern: Pattern,
    },
    /// Queries the node of each page. Answered with [`Done::Nodes`].
    Nodes {
        /// Which pages.
        range: Range,
    },
    /// Gives the kernel advice. Answered with [`Done::Took`].
    Advise {
        /// Which pages.
        range: Range,
        /// Which advice.
        advice: Advice,
    },
    /// Sets the policy of pages (`mbind`), strictly. Answered with [`Done::Took`].
    Bind {
        /// Which pages.
        range: Range,
        /// Where new ones come from.
        policy: Policy,
        /// For most policies, at least one.
        #[serde(default)]
        nodes: Vec<u32>,
        /// Move pages that are elsewhere.
        #[serde(default)]
        migrate: bool,
    },
    /// Sets the policy of the program (`set_mempolicy`). Answered with [`Done::Nothing`].
    SetPolicy {
        /// Where its pages come from.
        policy: Policy,
        /// For most policies, at least one.
        #[serde(default)]
        nodes: Vec<u32>,
    },
    /// Moves pages (`move_pages`), whatever their policy. Answered with [`Done::Nodes`].
    MovePages {
        /// Which pages.
        range: Range,
        /// The target nodes, page by page in turn.
        nodes: Vec<u32>,
    },
    /// Moves all pages of the program (`migrate_pages`). Answered with [`Done::Left`].
    MigratePages {
        /// From these nodes.
        from: Vec<u32>,
        /// To these nodes.
        to: Vec<u32>,
    },
    /// Rewrites and verifies pages from several threads while they migrate. Answered with [`Done::Churned`].
    Churn {
        /// Which pages.
        range: Range,
        /// At most 64.
        threads: u32,
        /// How often each page is written, and compared afterwards.
        rounds: u32,
        /// Determines the contents.
        seed: u64,
        /// All pages move to each of these nodes in turn, while the threads are at work.
        #[serde(default)]
        nodes: Vec<u32>,
    },
    /// Makes threads raise and read counters in pages while these move to a node, over and over. The pages' content is lost.
    /// Answered with [`Done::Raced`].
    Race {
        /// Which pages.
        range: Range,
        /// Threads that read all pages.
        readers: u32,
        /// Threads that write, each to its share of the pages; at most 64 threads in all.
        writers: u32,
        /// How often each page is written.
        rounds: u64,
        /// Where the pages are moved to.
        node: u32,
    },
    /// Times an access to one byte of each page. A write does not change the content. Answered with [`Done::Latencies`].
    Latency {
        /// Which pages.
        range: Range,
        /// Write instead of read.
        #[serde(default)]
        write: bool,
    },
    /// Writes a pattern to a file, and makes the disk read it into pages (`O_DIRECT`). Answered with [`Done::Took`].
    ReadDirect {
        /// Which pages. A page has the place in the file that it has in the mapping.
        range: Range,
        /// Absolute path of a file or disk.
        path: String,
        /// With what.
        #[serde(flatten)]
        pattern: Pattern,
    },
    /// Makes the disk write pages to a file (`O_DIRECT`), and compares the file with a pattern. Answered with
    /// [`Done::Verified`].
    WriteDirect {
        /// Which pages. A page has the place in the file that it has in the mapping.
        range: Range,
        /// Absolute path of a file or disk.
        path: String,
        /// What they should hold.
        #[serde(flatten)]
        pattern: Pattern,
    },
    /// Survives SIGBUS from now on: a lost page is replaced with zeros. Answered with [`Done::Nothing`].
    Guard {
        /// Get SIGBUS as soon as the kernel knows, not only when the page is touched.
        #[serde(default)]
        early: bool,
    },
    /// Queries each SIGBUS since then, up to 64. Answered with [`Done::Faults`].
    Faults,
    /// Reads or writes one word of every page. A write does not change the content. Answered with [`Done::Took`].
    Touch {
        /// Which pages.
        range: Range,
        /// Write instead of read.
        #[serde(default)]
        write: bool,
        /// How often, over the whole range.
        rounds: u32,
    },
    /// Writes pages in a given way. Answered with [`Done::Took`].
    Write {
        /// Which pages.
        range: Range,
        /// How.
        way: Way,
        /// With what.
        #[serde(flatten)]
        pattern: Pattern,
    },
    /// Makes a request to the kernel for pages. Answered with [`Done::Took`].
    Ask {
        /// Which pages.
        range: Range,
        /// What.
        #[serde(flatten)]
        request: Request,
    },
    /// Physical addresses. Answered with [`Done::Physical`].
    Physical {
        /// Which pages; at most [`MAX_PHYSICAL`].
        range: Range,
    },
    /// Writes "ADDRESS LENGTH" of pages to a file, such as a debugfs file that acts on its writer's pages. Answered with
    /// [`Done::Nothing`].
    NameTo {
        /// Which pages.
        range: Range,
        /// Absolute path of a file that exists.
        path: String,
    },
    /// Unmaps a mapping.
    Free {
        /// As [`Done::Mapped`] gave it.
        map: u64,
    },
}

/// How long accesses took, one per page, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// The number of accesses.
    pub pages: u64,
    /// The total, with the time in between.
    pub whole: u64,
    /// Half of them took no longer.
    pub median: u64,
    /// Nine in ten took no longer.
    pub p90: u64,
    /// All but one in a hundred took no longer.
    pub p99: u64,
    /// The longest.
    pub most: u64,
}

impl Latencies {
    /// Summarizes these times. `whole` is the time from before the first to after the last.
    pub fn of(mut each: Vec<u64>, whole: u64) -> Self {
        each.sort_unstable();
        let part = |per_cent: usize| each.get((each.len() * per_cent / 100).min(each.len().saturating_sub(1)));
        let part = |per_cent| part(per_cent).copied().unwrap_or_default();
        Self { pages: each.len() as u64, whole, median: part(50), p90: part(90), p99: part(99), most: part(100) }
    }
}

/// The most addresses in one answer.
pub const MAX_PHYSICAL: u64 = 65_536;

/// Advice for `madvise`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// `MADV_DONTNEED`: the content is lost and the pages are freed.
    DontNeed,
    /// `MADV_PAGEOUT`: reclaim now, by demotion where the kernel can.
    PageOut,
    /// `MADV_COLD`: reclaim first.
    Cold,
    /// `MADV_POPULATE_WRITE`: fault in.
    Populate,
    /// `MADV_POPULATE_READ`: fault in, without a store.
    PopulateRead,
    /// `MADV_HWPOISON`: the kernel treats the page as broken.
    HwPoison,
    /// `MADV_SOFT_OFFLINE`: the kernel moves the content away and takes the page out of use.
    SoftOffline,
}

/// The answer to an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The order's id; absent if the line has none.
    pub id: Option<u64>,
    /// The result.
    #[serde(flatten)]
    pub result: Outcome,
}

/// The result of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Success.
    Done(Done),
    /// Failure.
    Failed(Failure),
}

/// The outcome of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Done {
    /// Nothing but success.
    Nothing,
    /// Memory was mapped.
    Mapped {
        /// Names it in later orders.
        map: u64,
        /// Its virtual address.
        address: u64,
    },
    /// Pages were worked on.
    Took {
        /// How many.
        pages: u64,
        /// How long that took.
        nanoseconds: u64,
    },
    /// Pages were compared.
    Verified {
        /// The result of the comparison.
        verdict: Verdict,
        /// How long that took.
        nanoseconds: u64,
    },
    /// Pages by node.
    Nodes {
        /// Each node that has some, and how many.
        nodes: Vec<(u32, u64)>,
        /// Pages on no node: each error number, 2 (`ENOENT`) for not present, and how many.
        absent: Vec<(i32, u64)>,
    },
    /// Pages that stayed where they were.
    Left {
        /// How many.
        pages: u64,
    },
    /// Pages were rewritten and moved.
    Churned {
        /// The result of all comparisons.
        verdict: Verdict,
        /// Requests to move the pages.
        passes: u64,
        /// Pages that moved.
        moved: u64,
    },
    /// Counters were raised while the pages moved.
    Raced(Raced),
    /// How long accesses took.
    Latencies(Latencies),
    /// Each SIGBUS, oldest first.
    Faults {
        /// The recorded signals.
        faults: Vec<Fault>,
    },
    /// Addresses by page.
    Physical {
        /// Guest physical addresses; none for a page that is not present.
        addresses: Vec<Option<u64>>,
    },
}

/// The action that failed memory requires: the `si_code` of SIGBUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `BUS_MCEERR_AR`: this load touched the memory, and cannot complete.
    Required,
    /// `BUS_MCEERR_AO`: the memory is lost, but nothing has touched it yet.
    Optional,
    /// SIGBUS for another reason.
    Other,
}

/// A SIGBUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Why.
    pub action: Action,
    /// `si_addr`.
    pub address: u64,
    /// `si_addr_lsb`: the number of insignificant low bits of the address.
    pub low_bits: u8,
}

/// Where new pages come from: Documentation/admin-guide/mm/numa_memory_policy.rst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// `MPOL_DEFAULT`: the node of the processor. Takes no nodes.
    Default,
    /// `MPOL_PREFERRED`: one node, others when it is full.
    Preferred,
    /// `MPOL_BIND`: only these nodes.
    Bind,
    /// `MPOL_INTERLEAVE`: these nodes in turn, page by page.
    Interleave,
    /// `MPOL_PREFERRED_MANY`: these nodes, others when they are full.
    PreferredMany,
    /// `MPOL_WEIGHTED_INTERLEAVE`: these nodes in turn, with as many pages each as its weight. Since Linux 6.9.
    WeightedInterleave,
}

/// The outcome of a race.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raced {
    /// Readings of a page that were older than an earlier reading of the same thread.
    pub backward: u64,
    /// Readings of a page that had later stores without the earlier ones.
    pub torn: u64,
    /// Words that do not hold the last store.
    pub lost: u64,
    /// Pages read.
    pub reads: u64,
    /// Pages written.
    pub writes: u64,
    /// Requests to move all pages.
    pub passes: u64,
    /// Pages that moved.
    pub moved: u64,
    /// The error number that ended the moving, if any: the node may go away meanwhile. The threads go on.
    pub stopped: Option<i32>,
}

/// A request to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// A long-term pin (`FOLL_LONGTERM`), released at once, through the kernel's gup_test.
    PinLongterm,
    /// `mbind` to a node with `MPOL_MF_MOVE`, not strict: pages that cannot move stay, without an error.
    BindAndMove {
        /// The target node.
        node: u32,
    },
    /// `mlock`, and `munlock`.
    Lock,
    /// `MADV_MERGEABLE`: KSM may merge them.
    Mergeable,
    /// `MADV_COLLAPSE`: collapse them into huge pages now.
    Collapse,
    /// `MADV_HUGEPAGE` for the whole mapping: khugepaged may collapse it into huge pages.
    Huge,
    /// Splits the huge pages, through debugfs.
    Split,
    /// userfaultfd moves them elsewhere, and back.
    UserfaultMove,
    /// userfaultfd write-protects them, and releases them.
    UserfaultProtect,
}

/// A way to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A store.
    Store,
    /// A child's store to a page shared since `fork`. The parent's content stays.
    Child,
    /// The parent's store while a child shares the page. The child's content stays.
    Parent,
    /// A store after `mprotect` to read only and back.
    Mprotect,
    /// A store after `mremap` to another address; the page is moved back afterwards.
    Mremap,
    /// `process_vm_writev`, which takes the page by `pin_user_pages` for writing.
    ProcessVm,
    /// A write to `/proc/self/mem` while the page is read only: `FOLL_FORCE`.
    ProcMem,
    /// `read` from a pipe: the kernel's own store.
    Read,
    /// A store after userfaultfd has moved the page away and back.
    UserfaultMove,
    /// A store after userfaultfd has write-protected the page and released it.
    UserfaultProtect,
    /// A store to a page that was unmapped to be swapped out, but is still in the swap cache: a pipe refers to it. Needs swap
    /// space, and a node that can be reclaimed.
    SwapCache,
    /// `vmsplice` from a pipe: the same, through the page's address.
    Vmsplice,
    /// A store while a pipe holds the page since `vmsplice`, so that it cannot move. The pipe returns the page from before or
    /// after the store, and nothing in between.
    Spliced,
}
