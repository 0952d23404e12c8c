//! The `memory` program's orders and answers: JSON, one a line.

use serde::{Deserialize, Serialize};

use super::guard::Fault;
use super::numa::Policy;
use super::race::Raced;
use super::request::Request;
use super::write::Way;
use crate::pattern::{Pattern, Verdict};
use crate::protocol::Failure;

/// One order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by the caller; the answer carries it.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub task: Task,
}

/// Pages of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// As [`Done::Mapped`] gave it.
    pub map: u64,
    /// The first page.
    #[serde(default)]
    pub first: u64,
    /// How many; to the end of the mapping when absent.
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

/// What `memory` can be told to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Maps anonymous memory. Answered with [`Done::Mapped`].
    Map {
        /// A multiple of 4096.
        bytes: u64,
        /// Strictly from this node; from anywhere when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<u32>,
        /// Fault every page in at once, for writing.
        #[serde(default)]
        populate: bool,
        /// Ask for huge pages. Without it they are refused, so that counts are in pages of 4096 bytes.
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
        /// Where pages come from that are not cached yet.
        node: u32,
    },
    /// Maps the first pages of a file shared, so that writing writes it: a device-dax device. Answered with
    /// [`Done::Mapped`].
    MapShared {
        /// Absolute path.
        path: String,
        /// A multiple of what the file can be mapped in: 2 MiB for device-dax.
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
    /// Asks on which node each page is. Answered with [`Done::Nodes`].
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
        /// Move those that are elsewhere.
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
        /// Where to: page by page in turn.
        nodes: Vec<u32>,
    },
    /// Moves all pages of the program (`migrate_pages`). Answered with [`Done::Left`].
    MigratePages {
        /// Those on these nodes.
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
        /// Another seed, other contents.
        seed: u64,
        /// All pages move to each of these in turn, as long as the threads are at work.
        #[serde(default)]
        nodes: Vec<u32>,
    },
    /// Has threads raise and read counters in pages while these move to a node, over and over. Their content is lost. Answered
    /// with [`Done::Raced`].
    Race {
        /// Which pages.
        range: Range,
        /// Threads that read all pages.
        readers: u32,
        /// Threads that write, each its share of the pages; 64 threads at most in all.
        writers: u32,
        /// How often each page is written.
        rounds: u64,
        /// Where the pages are moved to.
        node: u32,
    },
    /// Times an access to one byte of each page. A write stores what was there. Answered with [`Done::Latencies`].
    Latency {
        /// Which pages.
        range: Range,
        /// Write instead of read.
        #[serde(default)]
        write: bool,
    },
    /// Writes a pattern to a file, and has the disk read it into pages (`O_DIRECT`). Answered with [`Done::Took`].
    ReadDirect {
        /// Which pages. A page has the place in the file that it has in the mapping.
        range: Range,
        /// Absolute path of a file or disk.
        path: String,
        /// With what.
        #[serde(flatten)]
        pattern: Pattern,
    },
    /// Has the disk write pages to a file (`O_DIRECT`), and compares the file with a pattern. Answered with
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
    /// Survives SIGBUS from now on: a page that is gone is replaced by zeros. Answered with [`Done::Nothing`].
    Guard {
        /// Be told as soon as the kernel knows, not only when the page is met.
        #[serde(default)]
        early: bool,
    },
    /// Asks for every SIGBUS since then, the first 64. Answered with [`Done::Faults`].
    Faults,
    /// Reads or writes one word of every page. A write stores what was there. Answered with [`Done::Took`].
    Touch {
        /// Which pages.
        range: Range,
        /// Write instead of read.
        #[serde(default)]
        write: bool,
        /// How often, over the whole range.
        rounds: u32,
    },
    /// Writes pages in one of the ways there are. Answered with [`Done::Took`].
    Write {
        /// Which pages.
        range: Range,
        /// How.
        way: Way,
        /// With what.
        #[serde(flatten)]
        pattern: Pattern,
    },
    /// Asks the kernel something for pages. Answered with [`Done::Took`].
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
    /// Writes "ADDRESS LENGTH" of pages to a file, such as one of debugfs that acts on pages of its writer. Answered with
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

/// How long accesses took, one a page: nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// How many there were.
    pub pages: u64,
    /// All of them together, with what lies between them.
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
    /// What is said of these times. `whole` is the time from before the first to after the last.
    pub fn of(mut each: Vec<u64>, whole: u64) -> Self {
        each.sort_unstable();
        let part = |per_cent: usize| each.get((each.len() * per_cent / 100).min(each.len().saturating_sub(1)));
        let part = |per_cent| part(per_cent).copied().unwrap_or_default();
        Self { pages: each.len() as u64, whole, median: part(50), p90: part(90), p99: part(99), most: part(100) }
    }
}

/// The most addresses in one answer.
pub const MAX_PHYSICAL: u64 = 65_536;

/// Advice as `madvise` takes it.
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
    /// The order's; absent when the line could not be read well enough to find it.
    pub id: Option<u64>,
    /// How it went.
    #[serde(flatten)]
    pub result: Outcome,
}

/// How an order went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done(Done),
    /// It was not.
    Failed(Failure),
}

/// What an order gave.
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
        /// What was found.
        verdict: Verdict,
        /// How long that took.
        nanoseconds: u64,
    },
    /// Pages by node.
    Nodes {
        /// Each node that has some, and how many.
        nodes: Vec<(u32, u64)>,
        /// Pages that are on none: each error number, 2 (`ENOENT`) for not present, and how many.
        absent: Vec<(i32, u64)>,
    },
    /// Pages that stayed where they were.
    Left {
        /// How many.
        pages: u64,
    },
    /// Pages were rewritten and moved.
    Churned {
        /// What all comparisons found.
        verdict: Verdict,
        /// Times the pages were told to move.
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
        /// What it said.
        faults: Vec<Fault>,
    },
    /// Addresses by page.
    Physical {
        /// Guest physical addresses; none for a page that is not present.
        addresses: Vec<Option<u64>>,
    },
}
