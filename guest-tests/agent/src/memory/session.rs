//! The session: reads orders, keeps the mappings, writes answers.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use cxl_cram_wire::memory::{Answer, Done, Latencies, MAX_PHYSICAL, Order, Outcome, Policy, Range, Task};
use cxl_cram_wire::pattern::{PAGE, Pattern, Verdict};
use cxl_cram_wire::protocol::Failure;
use serde_json::Value;

use super::churn::{Churned, churn};
use super::direct;
use super::guard;
use super::race::race;
use super::region::Region;
use super::source::Source;
use super::write::write;
use super::{numa, request};

/// Serves orders until the input ends, and unmaps everything then.
///
/// # Errors
/// The input or the output fails.
pub fn serve(input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut session = Session::default();
    for line in input.lines() {
        let answer = session.answer(&line?);
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

#[derive(Default)]
struct Session {
    maps: BTreeMap<u64, Region>,
    next: u64,
}

impl Session {
    fn answer(&mut self, line: &str) -> Answer {
        let bad = |error: serde_json::Error| Failure::new(format!("not a valid order: {error}"));
        let value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => return Answer { id: None, result: Outcome::Failed(bad(error)) },
        };
        let id = value.get("id").and_then(Value::as_u64);
        let done = serde_json::from_value(value).map_err(bad).and_then(|Order { task, .. }| self.perform(task));
        Answer { id, result: done.map_or_else(Outcome::Failed, Outcome::Done) }
    }

    fn perform(&mut self, task: Task) -> Result<Done, Failure> {
        match task {
            Task::Map { bytes, node, populate, huge, locked } => {
                self.map(bytes, node, populate, huge, locked).map_err(|error| Failure::io("map", &error))
            }
            Task::Fill { range, pattern } => self.fill(range, &pattern),
            Task::Verify { range, pattern } => self.verify(range, &pattern),
            Task::MapCached { path, bytes, node } => pages_in(bytes)
                .and_then(|pages| Region::of_page_cache(Path::new(&path), pages, node))
                .map(|region| self.keep(region))
                .map_err(|error| Failure::io("map a file", &error)),
            Task::MapShared { path, bytes } => pages_in(bytes)
                .and_then(|pages| Region::shared(Path::new(&path), pages))
                .map(|region| self.keep(region))
                .map_err(|error| Failure::io("map a file", &error)),
            Task::Nodes { range } => {
                let (region, first, pages) = self.resolve(range)?;
                by_node(|count| region.nodes(first, pages, count)).map_err(|error| Failure::io("query nodes", &error))
            }
            Task::MovePages { range, nodes } => {
                let (region, first, pages) = self.resolve(range)?;
                by_node(|count| region.move_pages(first, pages, &nodes, count))
                    .map_err(|error| Failure::io("move_pages", &error))
            }
            Task::MigratePages { from, to } => numa::migrate_pages(&from, &to)
                .map(|pages| Done::Left { pages })
                .map_err(|error| Failure::io("migrate_pages", &error)),
            Task::Churn { range, threads, rounds, seed, nodes } => {
                let (region, first, pages) = self.resolve(range)?;
                churn(region, first, pages, (threads, rounds, seed), &nodes)
                    .map(|Churned { verdict, passes, moved }| Done::Churned { verdict, passes, moved })
                    .map_err(|error| Failure::io("move_pages", &error))
            }
            Task::Race { range, readers, writers, rounds, node } => {
                let (region, first, pages) = self.resolve(range)?;
                race(region, first, pages, (readers, writers, rounds), node)
                    .map(Done::Raced)
                    .map_err(|error| Failure::io("race", &error))
            }
            Task::Latency { range, write } => {
                let (region, first, pages) = self.resolve(range)?;
                let mut each = Vec::with_capacity(pages);
                let begin = Instant::now();
                for page in first..first + pages {
                    let before = Instant::now();
                    touch(region.page(page), write);
                    each.push(nanoseconds(before.elapsed()));
                }
                Ok(Done::Latencies(Latencies::of(each, nanoseconds(begin.elapsed()))))
            }
            Task::ReadDirect { range, path, pattern } => {
                let mut source = source(&pattern)?;
                self.timed("direct I/O", range, |region, first, pages| {
                    direct::read(region, first, pages, &path, &mut source)
                })
            }
            Task::WriteDirect { range, path, pattern } => {
                self.verified("direct I/O", range, &pattern, |region, first, pages, source| {
                    direct::write(region, first, pages, &path, source)
                })
            }
            Task::Guard { early } => {
                guard::install(early).map(|()| Done::Nothing).map_err(|error| Failure::io("survive SIGBUS", &error))
            }
            Task::Faults => Ok(Done::Faults { faults: guard::faults() }),
            Task::Advise { range, advice } => {
                self.timed("advise", range, |region, first, pages| region.advise(first, pages, advice))
            }
            Task::Bind { range, policy, nodes, migrate } => {
                self.timed("mbind", range, |region, first, pages| region.bind(first, pages, policy, &nodes, migrate))
            }
            Task::SetPolicy { policy, nodes } => numa::set_mempolicy(policy, &nodes)
                .map(|()| Done::Nothing)
                .map_err(|error| Failure::io("set_mempolicy", &error)),
            Task::Touch { range, write, rounds } => self.timed("touch", range, |region, first, pages| {
                for _ in 0..rounds {
                    (first..first + pages).for_each(|page| touch(region.page(page), write));
                }
                Ok(())
            }),
            Task::Write { range, way, pattern } => {
                let mut source = source(&pattern)?;
                self.timed("write", range, |region, first, pages| {
                    (first..first + pages).try_for_each(|page| write(region, page, source.page(page as u64)?, way))
                })
            }
            Task::Ask { range, request } => {
                self.timed("ask", range, |region, first, pages| request::ask(&request, region, first, pages))
            }
            Task::Physical { range } => {
                let (region, first, pages) = self.resolve(range)?;
                if pages as u64 > MAX_PHYSICAL {
                    return Err(Failure::new(format!("more than {MAX_PHYSICAL} pages in one order")));
                }
                let addresses = region.physical(first, pages).map_err(|error| Failure::io("read pagemap", &error))?;
                Ok(Done::Physical { addresses })
            }
            Task::NameTo { range, path } => {
                let (region, first, pages) = self.resolve(range)?;
                let name = format!("{:#x} {:#x}", region.address() + (first * PAGE) as u64, pages * PAGE);
                OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .and_then(|mut file| file.write_all(name.as_bytes()))
                    .map(|()| Done::Nothing)
                    .map_err(|error| Failure::io(path, &error))
            }
            Task::Free { map } => self.maps.remove(&map).map(|_| Done::Nothing).ok_or_else(|| unknown(map)),
        }
    }

    fn map(&mut self, bytes: u64, node: Option<u32>, populate: bool, huge: bool, locked: bool) -> io::Result<Done> {
        let pages = pages_in(bytes)?;
        let region = Region::new(pages)?;
        if let Some(node) = node {
            region.bind(0, pages, Policy::Bind, &[node], false)?;
        }
        region.huge(huge)?;
        if populate {
            region.advise(0, pages, cxl_cram_wire::memory::Advice::Populate)?;
        }
        if locked {
            region.lock()?;
        }
        Ok(self.keep(region))
    }

    fn keep(&mut self, region: Region) -> Done {
        self.next += 1;
        let address = region.address();
        self.maps.insert(self.next, region);
        Done::Mapped { map: self.next, address }
    }

    fn fill(&mut self, range: Range, pattern: &Pattern) -> Result<Done, Failure> {
        let mut source = source(pattern)?;
        self.timed("fill", range, |region, first, pages| {
            for index in first..first + pages {
                region.page(index).copy_from_slice(source.page(index as u64)?);
            }
            Ok(())
        })
    }

    fn verify(&mut self, range: Range, pattern: &Pattern) -> Result<Done, Failure> {
        self.verified("verify", range, pattern, |region, first, pages, source| {
            let mut verdict = Verdict::default();
            for index in first..first + pages {
                let number = index as u64;
                verdict.compare(number, source.page(number)?, region.page(index));
            }
            Ok(verdict)
        })
    }

    fn verified(
        &mut self,
        what: &str,
        range: Range,
        pattern: &Pattern,
        compare: impl FnOnce(&mut Region, usize, usize, &mut Source) -> io::Result<Verdict>,
    ) -> Result<Done, Failure> {
        let mut source = source(pattern)?;
        let mut verdict = Verdict::default();
        let took = self.timed(what, range, |region, first, pages| {
            verdict = compare(region, first, pages, &mut source)?;
            Ok(())
        })?;
        let Done::Took { nanoseconds, .. } = took else { return Ok(took) };
        Ok(Done::Verified { verdict, nanoseconds })
    }

    fn timed(
        &mut self,
        what: &str,
        range: Range,
        work: impl FnOnce(&mut Region, usize, usize) -> io::Result<()>,
    ) -> Result<Done, Failure> {
        let (region, first, pages) = self.resolve(range)?;
        let begin = Instant::now();
        work(region, first, pages).map_err(|error| Failure::io(what, &error))?;
        Ok(Done::Took { pages: pages as u64, nanoseconds: nanoseconds(begin.elapsed()) })
    }

    /// The mapping, the first page and the number of pages, all within the mapping.
    fn resolve(&mut self, range: Range) -> Result<(&mut Region, usize, usize), Failure> {
        let region = self.maps.get_mut(&range.map).ok_or_else(|| unknown(range.map))?;
        let total = region.pages() as u64;
        let pages = range.pages.unwrap_or(total.saturating_sub(range.first));
        match range.first.checked_add(pages) {
            Some(end) if end <= total && pages > 0 => Ok((region, range.first as usize, pages as usize)),
            _ => Err(Failure::new(format!("the range exceeds the mapping's {total} pages"))),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn pages_in(bytes: u64) -> io::Result<usize> {
    if !bytes.is_multiple_of(PAGE as u64) {
        return Err(io::Error::other("the size is not a multiple of the page size"));
    }
    Ok(usize::try_from(bytes).map_err(io::Error::other)? / PAGE)
}

/// Counts pages by the status that `report` gives for each: a node, or a negative error number.
fn by_node(report: impl FnOnce(&mut dyn FnMut(i32)) -> io::Result<()>) -> io::Result<Done> {
    let (mut nodes, mut absent) = (BTreeMap::<u32, u64>::new(), BTreeMap::<i32, u64>::new());
    report(&mut |status| match u32::try_from(status) {
        Ok(node) => *nodes.entry(node).or_default() += 1,
        Err(_) => *absent.entry(-status).or_default() += 1,
    })?;
    Ok(Done::Nodes { nodes: nodes.into_iter().collect(), absent: absent.into_iter().collect() })
}

fn source(pattern: &Pattern) -> Result<Source, Failure> {
    Source::new(pattern).map_err(|error| Failure::io("open the pattern", &error))
}

fn unknown(map: u64) -> Failure {
    Failure::new(format!("there is no mapping {map}; map memory first"))
}

/// Loads the page's first byte, and with `write` stores it again.
fn touch(page: &mut [u8; PAGE], write: bool) {
    let byte = std::hint::black_box(page[0]);
    if write {
        page[0] = std::hint::black_box(byte);
    }
}

#[cfg(test)]
mod tests;
