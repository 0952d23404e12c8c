//! Memory that a program in the guest holds: mapped, filled, verified, looked up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use cxl_cram_guest::memory::protocol::Latencies;
use cxl_cram_guest::memory::protocol::{Advice, Answer, Done, MAX_PHYSICAL, Order, Outcome, Range, Task};
pub use cxl_cram_guest::memory::race::Raced;
pub use cxl_cram_guest::memory::{guard::Fault, numa::Policy, request::Request, write::Way};
use cxl_cram_guest::pattern::{PAGE, Pattern, Verdict};
use cxl_cram_guest::protocol::{Failure, Stream};

use super::client::{GuestError, SHORT};
use super::program::{Next, Spawned};

/// A `memory` program. Its memory is freed when this is dropped.
#[derive(Debug)]
pub struct Memory {
    program: Spawned,
    next: u64,
    /// What it wrote to standard error, for the error message of its end.
    complaints: String,
}

/// A mapping of a [`Memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Names it in orders.
    pub map: u64,
    /// Virtual address.
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Mapping {
    /// All of it.
    pub fn all(&self) -> Range {
        Range::all(self.map)
    }

    /// Some pages of it.
    pub fn pages(&self, first: u64, pages: u64) -> Range {
        Range::pages(self.map, first, pages)
    }

    /// How many pages it has.
    pub fn page_count(&self) -> u64 {
        self.bytes / PAGE as u64
    }
}

/// Where pages are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Pages on each node.
    pub nodes: BTreeMap<u32, u64>,
    /// Pages that are on none, by error number; 2 (`ENOENT`) is not present.
    pub absent: BTreeMap<i32, u64>,
}

/// What came of pages that were written and moved at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Churned {
    /// All comparisons.
    pub verdict: Verdict,
    /// Times the pages were told to move.
    pub passes: u64,
    /// Pages that moved.
    pub moved: u64,
}

impl Nodes {
    /// Pages on a node.
    pub fn on(&self, node: u32) -> u64 {
        self.nodes.get(&node).copied().unwrap_or_default()
    }
}

impl Memory {
    pub(super) fn new(program: Spawned) -> Self {
        Self { program, next: 1, complaints: String::new() }
    }

    /// The program itself.
    pub fn program(&self) -> &Spawned {
        &self.program
    }

    /// Maps memory strictly from a node, all of it present.
    ///
    /// # Errors
    /// The node does not have it.
    pub fn map_on(&mut self, node: u32, bytes: u64, limit: Duration) -> Result<Mapping, GuestError> {
        self.map(Task::Map { bytes, node: Some(node), populate: true, huge: false, locked: false }, bytes, limit)
    }

    /// Maps memory from anywhere, none of it present.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn map_anywhere(&mut self, bytes: u64) -> Result<Mapping, GuestError> {
        self.map(Task::Map { bytes, node: None, populate: false, huge: false, locked: false }, bytes, SHORT)
    }

    /// Maps the first bytes of a file shared: of a device-dax device, in multiples of 2 MiB.
    ///
    /// # Errors
    /// It cannot be opened, or not be mapped like this.
    pub fn map_shared(&mut self, path: &str, bytes: u64) -> Result<Mapping, GuestError> {
        self.map(Task::MapShared { path: path.to_owned(), bytes }, bytes, SHORT)
    }

    fn map(&mut self, task: Task, bytes: u64, limit: Duration) -> Result<Mapping, GuestError> {
        match self.order(task, limit)? {
            Done::Mapped { map, address } => Ok(Mapping { map, address, bytes }),
            other => Err(self.unfit(&other)),
        }
    }

    /// Fills pages; gives the time it took in the guest.
    ///
    /// # Errors
    /// The pattern cannot be had, or it took too long.
    pub fn fill(&mut self, range: Range, pattern: &Pattern, limit: Duration) -> Result<Duration, GuestError> {
        self.took(Task::Fill { range, pattern: pattern.clone() }, limit)
    }

    /// Compares pages with what they were filled with.
    ///
    /// # Errors
    /// The pattern cannot be had, or it took too long. Pages that differ are no error: the verdict tells.
    pub fn verify(&mut self, range: Range, pattern: &Pattern, limit: Duration) -> Result<Verdict, GuestError> {
        match self.order(Task::Verify { range, pattern: pattern.clone() }, limit)? {
            Done::Verified { verdict, .. } => Ok(verdict),
            other => Err(self.unfit(&other)),
        }
    }

    /// On which nodes pages are.
    ///
    /// # Errors
    /// The guest did not answer.
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

    /// Gives the kernel advice about pages.
    ///
    /// # Errors
    /// It does not take it.
    pub fn advise(&mut self, range: Range, advice: Advice, limit: Duration) -> Result<Duration, GuestError> {
        self.took(Task::Advise { range, advice }, limit)
    }

    /// Maps the first bytes of a file: its page cache, which comes from a node as far as there is none yet.
    ///
    /// # Errors
    /// The file is shorter, or the node does not have the memory.
    pub fn map_cached(&mut self, path: &str, bytes: u64, node: u32, limit: Duration) -> Result<Mapping, GuestError> {
        self.map(Task::MapCached { path: path.to_owned(), bytes, node }, bytes, limit)
    }

    /// Binds pages to a node and moves those that are elsewhere.
    ///
    /// # Errors
    /// Some could not be moved.
    pub fn move_to(&mut self, range: Range, node: u32, limit: Duration) -> Result<Duration, GuestError> {
        self.bind(range, Policy::Bind, &[node], limit)
    }

    /// Sets the policy of pages (`mbind`), and moves those that do not follow it.
    ///
    /// # Errors
    /// No such node, or some could not be moved.
    pub fn bind(
        &mut self,
        range: Range,
        policy: Policy,
        nodes: &[u32],
        limit: Duration,
    ) -> Result<Duration, GuestError> {
        self.took(Task::Bind { range, policy, nodes: nodes.to_vec(), migrate: true }, limit)
    }

    /// Sets the policy of the program (`set_mempolicy`): of pages in mappings that have none of their own.
    ///
    /// # Errors
    /// No such node.
    pub fn set_policy(&mut self, policy: Policy, nodes: &[u32]) -> Result<(), GuestError> {
        self.order(Task::SetPolicy { policy, nodes: nodes.to_vec() }, SHORT).map(drop)
    }

    /// Moves pages to these nodes in turn (`move_pages`), whatever their policy; tells where each is then, or why it is not.
    ///
    /// # Errors
    /// The call fails as a whole.
    pub fn move_pages(&mut self, range: Range, nodes: &[u32], limit: Duration) -> Result<Nodes, GuestError> {
        self.located(Task::MovePages { range, nodes: nodes.to_vec() }, limit)
    }

    /// Moves all pages of the program from nodes to others (`migrate_pages`); tells how many stayed.
    ///
    /// # Errors
    /// No such node.
    pub fn migrate(&mut self, from: &[u32], to: &[u32], limit: Duration) -> Result<u64, GuestError> {
        match self.order(Task::MigratePages { from: from.to_vec(), to: to.to_vec() }, limit)? {
            Done::Left { pages } => Ok(pages),
            other => Err(self.unfit(&other)),
        }
    }

    /// Has threads rewrite and verify pages, `rounds` times each, while all of them move to these nodes in turn.
    ///
    /// # Errors
    /// The pages cannot be moved at all, or it took too long. Pages that differ are no error: the verdict tells.
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

    /// Has threads raise and read counters in pages, `rounds` times each, while all of them move to a node over and over. Their
    /// content is lost.
    ///
    /// # Errors
    /// It took too long. What was lost on the way is no error: it is told.
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
    /// It took too long.
    pub fn latency(&mut self, range: Range, write: bool, limit: Duration) -> Result<Latencies, GuestError> {
        match self.order(Task::Latency { range, write }, limit)? {
            Done::Latencies(latencies) => Ok(latencies),
            other => Err(self.unfit(&other)),
        }
    }

    /// Writes a pattern to a file or disk of the guest, and has the disk read it into pages (`O_DIRECT`).
    ///
    /// # Errors
    /// The file has no direct I/O or is too short, or it took too long.
    pub fn read_direct(
        &mut self,
        range: Range,
        path: &str,
        pattern: &Pattern,
        limit: Duration,
    ) -> Result<Duration, GuestError> {
        self.took(Task::ReadDirect { range, path: path.to_owned(), pattern: pattern.clone() }, limit)
    }

    /// Has the disk write pages to a file or disk of the guest (`O_DIRECT`), and compares what came there.
    ///
    /// # Errors
    /// The file has no direct I/O or is too short, or it took too long.
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

    /// Survives SIGBUS from now on; with `early` it comes as soon as the kernel knows that memory is gone.
    ///
    /// # Errors
    /// The kernel has no memory failure handling.
    pub fn guard(&mut self, early: bool) -> Result<(), GuestError> {
        self.order(Task::Guard { early }, SHORT).map(drop)
    }

    /// Each SIGBUS since [`Self::guard`], oldest first.
    ///
    /// # Errors
    /// The guest did not answer.
    pub fn faults(&mut self) -> Result<Vec<Fault>, GuestError> {
        match self.order(Task::Faults, SHORT)? {
            Done::Faults { faults } => Ok(faults),
            other => Err(self.unfit(&other)),
        }
    }

    /// Reads, or writes, one byte of every page.
    ///
    /// # Errors
    /// It took too long.
    pub fn touch(&mut self, range: Range, write: bool, rounds: u32, limit: Duration) -> Result<Duration, GuestError> {
        self.took(Task::Touch { range, write, rounds }, limit)
    }

    /// Writes pages in one of the ways there are.
    ///
    /// # Errors
    /// A call fails, or parent and child do not each keep their own content.
    pub fn write(
        &mut self,
        range: Range,
        way: Way,
        pattern: &Pattern,
        limit: Duration,
    ) -> Result<Duration, GuestError> {
        self.took(Task::Write { range, way, pattern: pattern.clone() }, limit)
    }

    /// Asks the kernel something for pages.
    ///
    /// # Errors
    /// It refuses.
    pub fn ask(&mut self, range: Range, request: Request, limit: Duration) -> Result<Duration, GuestError> {
        self.took(Task::Ask { range, request }, limit)
    }

    /// Maps memory from anywhere as one huge page each 2 MiB, all of it present.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn map_huge(&mut self, bytes: u64, limit: Duration) -> Result<Mapping, GuestError> {
        self.map(Task::Map { bytes, node: None, populate: true, huge: true, locked: false }, bytes, limit)
    }

    /// Guest physical addresses of pages; none for a page that is not present. A range of any length.
    ///
    /// # Errors
    /// The guest did not answer.
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

    /// Writes where pages are to a file of the guest that acts on pages of its writer.
    ///
    /// # Errors
    /// The kernel does not take it.
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

    /// Gives an order and waits for its answer.
    ///
    /// # Errors
    /// The program could not do it, did not answer, or ended.
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
                    let answer: Answer = serde_json::from_str(&line).map_err(|error| fail(error.to_string()))?;
                    // An answer to an order that was given up is not ours.
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
        let failure = Failure::new(format!("it answered another order: {done:?}"));
        GuestError::Failed { what: self.program.what().to_owned(), failure }
    }
}
