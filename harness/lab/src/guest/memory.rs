//! Maps, fills, moves and verifies memory held by a program in the guest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use cxl_cram_wire::memory::Latencies;
pub use cxl_cram_wire::memory::Raced;
use cxl_cram_wire::memory::{Advice, Answer, Done, MAX_PHYSICAL, Order, Outcome, Range, Task};
pub use cxl_cram_wire::memory::{Fault, Policy, Request, Way};
use cxl_cram_wire::pattern::{PAGE, Pattern, Verdict};
use cxl_cram_wire::protocol::{Failure, Stream};

use super::client::{GuestError, SHORT};
use super::program::{Next, Spawned};

/// A `memory` program. Dropping this frees its memory.
#[derive(Debug)]
pub struct Memory {
    program: Spawned,
    next: u64,
    /// Its standard error, for the error message if it exits.
    complaints: String,
}

/// A mapping of a [`Memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The mapping's number in orders.
    pub map: u64,
    /// Virtual address.
    pub address: u64,
    /// Size in bytes.
    pub bytes: u64,
}

impl Mapping {
    /// The whole mapping.
    pub fn all(&self) -> Range {
        Range::all(self.map)
    }

    /// Part of the mapping, in pages.
    pub fn pages(&self, first: u64, pages: u64) -> Range {
        Range::pages(self.map, first, pages)
    }

    /// The number of pages.
    pub fn page_count(&self) -> u64 {
        self.bytes / PAGE as u64
    }
}

/// The location of pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Number of pages on each node.
    pub nodes: BTreeMap<u32, u64>,
    /// Number of pages on no node, by error number; 2 (`ENOENT`) means not present.
    pub absent: BTreeMap<i32, u64>,
}

/// The result of [`Memory::churn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Churned {
    /// The result of all comparisons.
    pub verdict: Verdict,
    /// Number of requests to move all pages.
    pub passes: u64,
    /// Number of page moves.
    pub moved: u64,
}

impl Nodes {
    /// Number of pages on a node.
    pub fn on(&self, node: u32) -> u64 {
        self.nodes.get(&node).copied().unwrap_or_default()
    }
}

impl Memory {
    pub(super) fn new(program: Spawned) -> Self {
        Self { program, next: 1, complaints: String::new() }
    }

    /// The program.
    pub fn program(&self) -> &Spawned {
        &self.program
    }

    /// Maps memory strictly from a node, all of it present.
    ///
    /// # Errors
    /// The node does not have enough memory.
    pub fn map_on(&mut self, node: u32, bytes: u64, limit: Duration) -> Result<Mapping, GuestError> {
        self.map(Task::Map { bytes, node: Some(node), populate: true, huge: false, locked: false }, bytes, limit)
    }

    /// Maps memory from any node, none of it present.
    ///
    /// # Errors
    /// The guest has no room for the mapping.
    pub fn map_anywhere(&mut self, bytes: u64) -> Result<Mapping, GuestError> {
        self.map(Task::Map { bytes, node: None, populate: false, huge: false, locked: false }, bytes, SHORT)
    }

    /// Maps the start of a file shared. A device-dax device needs a multiple of 2 MiB.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    pub fn map_shared(&mut self, path: &str, bytes: u64) -> Result<Mapping, GuestError> {
        self.map(Task::MapShared { path: path.to_owned(), bytes }, bytes, SHORT)
    }

    fn map(&mut self, task: Task, bytes: u64, limit: Duration) -> Result<Mapping, GuestError> {
        match self.order(task, limit)? {
            Done::Mapped { map, address } => Ok(Mapping { map, address, bytes }),
            other => Err(self.unfit(&other)),
        }
    }

    /// Fills pages. Returns the time this took in the guest.
    ///
    /// # Errors
    /// The pattern's file cannot be read, or the limit is exceeded.
    pub fn fill(&mut self, range: Range, pattern: &Pattern, limit: Duration) -> Result<Duration, GuestError> {
        self.took(Task::Fill { range, pattern: pattern.clone() }, limit)
    }

    /// Compares pages with a pattern. The verdict counts the pages that differ.
    ///
    /// # Errors
    /// The pattern's file cannot be read, or the limit is exceeded.
    pub fn verify(&mut self, range: Range, pattern: &Pattern, limit: Duration) -> Result<Verdict, GuestError> {
        match self.order(Task::Verify { range, pattern: pattern.clone() }, limit)? {
            Done::Verified { verdict, .. } => Ok(verdict),
            other => Err(self.unfit(&other)),
        }
    }

    /// The nodes that pages are on.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn nodes(&mut self, range: Range) -> Result<Nodes, GuestError> {
        self.located(Task::Nodes { range }, SHORT)
    }

    fn located(&mut self, task: Task, limit: Duration) -> Result<Nodes, GuestError> {
        match self.order(task, limit)? {
            Done::Nodes { nodes, absent } => {
                Ok(Nodes { nodes: nodes.into_iter().collect(), absent: absent.into_iter().collect() })
            }
            other => Err(self.unfit(&other)),
        }
    }

    /// Advises the kernel about pages (`madvise`).
    ///
    /// # Errors
    /// The kernel refuses the advice.
    pub fn advise(&mut self, range: Range, advice: Advice, limit: Duration) -> Result<Duration, GuestError> {
        self.took(Task::Advise { range, advice }, limit)
    }

    /// Maps the start of a file. Page cache that does not exist yet is allocated from a node.
    ///
    /// # Errors
    /// The file is too short, or the node does not have enough memory.
    pub fn map_cached(&mut self, path: &str, bytes: u64, node: u32, limit: Duration) -> Result<Mapping, GuestError> {
        self.map(Task::MapCached { path: path.to_owned(), bytes, node }, bytes, limit)
    }

    /// Sets the policy of pages (`mbind`), and moves those that do not follow it.
    ///
    /// # Errors
    /// There is no such node, or a page cannot be moved.
    pub fn bind(
        &mut self,
        range: Range,
        policy: Policy,
        nodes: &[u32],
        limit: Duration,
    ) -> Result<Duration, GuestError> {
        self.took(Task::Bind { range, policy, nodes: nodes.to_vec(), migrate: true }, limit)
    }

    /// Sets the policy of the program (`set_mempolicy`), for mappings without their own.
    ///
    /// # Errors
    /// There is no such node.
    pub fn set_policy(&mut self, policy: Policy, nodes: &[u32]) -> Result<(), GuestError> {
        self.order(Task::SetPolicy { policy, nodes: nodes.to_vec() }, SHORT).map(drop)
    }

    /// Moves pages to these nodes in turn (`move_pages`), regardless of their policy. Returns where they are afterwards.
    ///
    /// # Errors
    /// The call fails as a whole.
    pub fn move_pages(&mut self, range: Range, nodes: &[u32], limit: Duration) -> Result<Nodes, GuestError> {
        self.located(Task::MovePages { range, nodes: nodes.to_vec() }, limit)
    }

    /// Moves all pages of the program between nodes (`migrate_pages`). Returns how many stayed.
    ///
    /// # Errors
    /// There is no such node.
    pub fn migrate(&mut self, from: &[u32], to: &[u32], limit: Duration) -> Result<u64, GuestError> {
        match self.order(Task::MigratePages { from: from.to_vec(), to: to.to_vec() }, limit)? {
            Done::Left { pages } => Ok(pages),
            other => Err(self.unfit(&other)),
        }
    }

    /// Rewrites and verifies pages in several threads, `rounds` times each, while all pages move to these nodes in turn.
    ///
    /// # Errors
    /// No page can be moved, or the limit is exceeded.
    pub fn churn(
        &mut self,
        range: Range,
        threads: u32,
        rounds: u32,
        nodes: &[u32],
        limit: Duration,
    ) -> Result<Churned, GuestError> {
        let seed = range.map;
        match self.order(Task::Churn { range, threads, rounds, seed, nodes: nodes.to_vec() }, limit)? {
            Done::Churned { verdict, passes, moved } => Ok(Churned { verdict, passes, moved }),
            other => Err(self.unfit(&other)),
        }
    }

    /// Increments and reads counters in pages from several threads, `rounds` times each, while all pages move to a node
    /// over and over. Overwrites the pages. The result counts lost and torn stores.
    ///
    /// # Errors
    /// The limit is exceeded.
    pub fn race(
        &mut self,
        range: Range,
        (readers, writers): (u32, u32),
        rounds: u64,
        node: u32,
        limit: Duration,
    ) -> Result<Raced, GuestError> {
        match self.order(Task::Race { range, readers, writers, rounds, node }, limit)? {
            Done::Raced(raced) => Ok(raced),
            other => Err(self.unfit(&other)),
        }
    }

    /// Times an access to one byte of each page.
    ///
    /// # Errors
    /// The limit is exceeded.
    pub fn latency(&mut self, range: Range, write: bool, limit: Duration) -> Result<Latencies, GuestError> {
        match self.order(Task::Latency { range, write }, limit)? {
            Done::Latencies(latencies) => Ok(latencies),
            other => Err(self.unfit(&other)),
        }
    }

    /// Writes a pattern to a file or disk of the guest, and reads it directly into pages (`O_DIRECT`).
    ///
    /// # Errors
    /// The file has no direct I/O or is too short, or the limit is exceeded.
    pub fn read_direct(
        &mut self,
        range: Range,
        path: &str,
        pattern: &Pattern,
        limit: Duration,
    ) -> Result<Duration, GuestError> {
        self.took(Task::ReadDirect { range, path: path.to_owned(), pattern: pattern.clone() }, limit)
    }

    /// Writes pages directly to a file or disk of the guest (`O_DIRECT`), and compares the result with a pattern.
    ///
    /// # Errors
    /// The file has no direct I/O or is too short, or the limit is exceeded.
    pub fn write_direct(
        &mut self,
        range: Range,
        path: &str,
        pattern: &Pattern,
        limit: Duration,
    ) -> Result<Verdict, GuestError> {
        match self.order(Task::WriteDirect { range, path: path.to_owned(), pattern: pattern.clone() }, limit)? {
            Done::Verified { verdict, .. } => Ok(verdict),
            other => Err(self.unfit(&other)),
        }
    }

    /// Makes the program survive SIGBUS. With `early`, the signal arrives as soon as the kernel knows of the failure.
    ///
    /// # Errors
    /// The kernel has no memory failure handling.
    pub fn guard(&mut self, early: bool) -> Result<(), GuestError> {
        self.order(Task::Guard { early }, SHORT).map(drop)
    }

    /// Every SIGBUS since [`Self::guard`], oldest first.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn faults(&mut self) -> Result<Vec<Fault>, GuestError> {
        match self.order(Task::Faults, SHORT)? {
            Done::Faults { faults } => Ok(faults),
            other => Err(self.unfit(&other)),
        }
    }

    /// Reads or writes one byte of every page.
    ///
    /// # Errors
    /// The limit is exceeded.
    pub fn touch(&mut self, range: Range, write: bool, rounds: u32, limit: Duration) -> Result<Duration, GuestError> {
        self.took(Task::Touch { range, write, rounds }, limit)
    }

    /// Writes pages in the given way.
    ///
    /// # Errors
    /// A call fails, or after a fork, parent and child do not keep their own content.
    pub fn write(
        &mut self,
        range: Range,
        way: Way,
        pattern: &Pattern,
        limit: Duration,
    ) -> Result<Duration, GuestError> {
        self.took(Task::Write { range, way, pattern: pattern.clone() }, limit)
    }

    /// Makes a request to the kernel for pages.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub fn ask(&mut self, range: Range, request: Request, limit: Duration) -> Result<Duration, GuestError> {
        self.took(Task::Ask { range, request }, limit)
    }

    /// Maps memory from any node as huge pages of 2 MiB, all of it present.
    ///
    /// # Errors
    /// The guest has no room for the mapping.
    pub fn map_huge(&mut self, bytes: u64, limit: Duration) -> Result<Mapping, GuestError> {
        self.map(Task::Map { bytes, node: None, populate: true, huge: true, locked: false }, bytes, limit)
    }

    /// The guest physical addresses of pages; `None` for a page that is not present. The range may be of any length.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn physical(&mut self, mapping: &Mapping, first: u64, pages: u64) -> Result<Vec<Option<u64>>, GuestError> {
        let mut all = Vec::new();
        let mut at = 0;
        while at < pages {
            let count = (pages - at).min(MAX_PHYSICAL);
            match self.order(Task::Physical { range: mapping.pages(first + at, count) }, SHORT)? {
                Done::Physical { addresses } => all.extend(addresses),
                other => return Err(self.unfit(&other)),
            }
            at += count;
        }
        Ok(all)
    }

    /// Writes the addresses of pages to a file of the guest that acts on its writer's pages.
    ///
    /// # Errors
    /// The kernel refuses the write.
    pub fn name_to(&mut self, range: Range, path: &str) -> Result<(), GuestError> {
        self.order(Task::NameTo { range, path: path.to_owned() }, Duration::from_secs(60)).map(drop)
    }

    /// Unmaps a mapping.
    ///
    /// # Errors
    /// There is no such mapping.
    pub fn free(&mut self, mapping: Mapping) -> Result<(), GuestError> {
        self.order(Task::Free { map: mapping.map }, SHORT).map(drop)
    }

    fn took(&mut self, task: Task, limit: Duration) -> Result<Duration, GuestError> {
        match self.order(task, limit)? {
            Done::Took { nanoseconds, .. } => Ok(Duration::from_nanos(nanoseconds)),
            other => Err(self.unfit(&other)),
        }
    }

    /// Sends an order and waits for its answer.
    ///
    /// # Errors
    /// The order fails, the program does not answer within the limit, or it exits.
    pub fn order(&mut self, task: Task, limit: Duration) -> Result<Done, GuestError> {
        let id = self.next;
        self.next += 1;
        let what = format!("{task:?}");
        let fail = |message: String| GuestError::Failed { what: what.clone(), failure: Failure::new(message) };
        let mut line = serde_json::to_string(&Order { id, task }).map_err(|error| fail(error.to_string()))?;
        line.push('\n');
        self.program.send(line.as_str())?;
        let end = self.program.end_of(limit);
        loop {
            match self.program.next_within(end.saturating_duration_since(Instant::now()))? {
                Next::Line(Stream::Stdout, line) => {
                    let invalid = |error| fail(format!("the memory program sent an invalid answer: {error}"));
                    let answer: Answer = serde_json::from_str(&line).map_err(invalid)?;
                    // An earlier order may have timed out; skip its answer.
                    match answer.result {
                        _ if answer.id != Some(id) => {}
                        Outcome::Done(done) => return Ok(done),
                        Outcome::Failed(failure) => return Err(GuestError::Failed { what, failure }),
                    }
                }
                Next::Line(Stream::Stderr, line) => {
                    if self.complaints.len() < 4096 {
                        self.complaints.push_str(&line);
                        self.complaints.push('\n');
                    }
                }
                Next::Exited(exit) => {
                    return Err(fail(format!("the memory program ended: {exit}\n{}", self.complaints)));
                }
            }
        }
    }

    fn unfit(&self, done: &Done) -> GuestError {
        let failure = Failure::new(format!("unexpected answer from the memory program: {done:?}"));
        GuestError::Failed { what: self.program.what().to_owned(), failure }
    }
}

// The guest program cannot depend on the device, so each defines the poison pattern.
const _: () = assert!(cxl_cram_wire::pattern::POISON == cxl_cram_device::hdm::media::POISON_PATTERN);
