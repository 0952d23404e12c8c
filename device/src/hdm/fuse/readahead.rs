//! Which pages the guest will ask for next.
//!
//! The device sees the pages that fault. Three in a row, up or down, or four at a distance of a few pages, are a *stream*.
//! The pages after it are read ahead, first a few, then twice as many each time the stream proves itself. Once they are
//! resident, the guest uses them without a fault, so one page in the middle of each batch is left out, the *marker*: its
//! fault shows that the guest has come so far, while the rest of the batch is still ahead of it. Pages that were evicted
//! before the guest came end the stream, and streams that end unused make the next ones start smaller.
//!
//! As long as all data fits the cache, reading ahead takes nothing from anything: then the neighbours of every fault are
//! read, too, as the kernel would.
//!
//! Pure data of bounded size; the caller brings the lock and reads the pages.

use std::{collections::VecDeque, ops::Range};

/// Faults among which a stream is recognised: enough for a few streams between many scattered accesses.
const RECENT: usize = 64;

/// Streams followed at a time. The one that was silent longest makes way.
const STREAMS: usize = 16;

/// Largest distance of two accesses of a stream, in pages.
const MAX_STRIDE: u64 = 32;

/// Pages of a run, what the kernel reads in one request.
pub(super) const MAX_RUN: u64 = 32;

/// Pages read ahead of a new stream, at most.
const FIRST: u64 = 8;

/// A stream that was silent for this many faults has no share of the pages that may be ahead.
const SILENT: u64 = 512;

/// Resident pages in the way of a stream that it goes past at a time.
const MAX_SKIP: u64 = 4096;

/// Faults whose neighbours wait to be read, at most.
const AROUND: usize = 64;

/// Faults without neighbours, after the data turned out not to fit the cache.
const CROWDED: u64 = 1024;

/// From this many pages on, a batch has a marker; before, the page after it is one.
const MARKED: u64 = 4;

/// The pages `origin + stride * step`.
#[derive(Debug)]
struct Stream {
    origin: u64,
    stride: i64,
    /// The step that the guest is known to have reached.
    reached: u64,
    /// Steps before this one have been read ahead, or were resident.
    filled: u64,
    /// Steps before this one are to be.
    goal: u64,
    /// The step left out.
    marker: u64,
    /// Steps of the last batch.
    batch: u64,
    /// Steps read ahead and not known to be used.
    ahead: VecDeque<Range<u64>>,
    used: u64,
    /// The fault that advanced it last.
    heard: u64,
}

impl Stream {
    fn page(&self, step: u64) -> Option<u64> {
        self.origin.checked_add_signed(self.stride.checked_mul(i64::try_from(step).ok()?)?)
    }

    fn step(&self, page: u64) -> Option<u64> {
        let distance = i64::try_from(page).ok()?.checked_sub_unsigned(self.origin)?;
        (distance % self.stride == 0).then(|| u64::try_from(distance / self.stride).ok()).flatten()
    }

    /// Plans the next batch, from this step on.
    fn plan(&mut self, from: u64, batch: u64) {
        self.batch = batch;
        self.goal = from + batch;
        self.marker = if batch < MARKED { self.goal } else { from + batch / 2 };
    }

    /// The guest has come to this step, hence past those before it. Returns how many of these were read ahead for it.
    fn reach(&mut self, step: u64) -> u64 {
        let mut used = 0;
        while let Some(steps) = self.ahead.front_mut().filter(|steps| steps.start < step) {
            let end = steps.end.min(step);
            used += end - steps.start;
            steps.start = end;
            if steps.is_empty() {
                self.ahead.pop_front();
            }
        }
        self.reached = step;
        self.filled = self.filled.max(step + 1);
        self.used += used;
        used
    }

    fn unused(&self) -> u64 {
        self.ahead.iter().map(|steps| steps.end - steps.start).sum()
    }
}

/// The streams of a window.
#[derive(Debug)]
pub(super) struct Readahead {
    /// The pages that faulted last, outside of streams.
    recent: VecDeque<u64>,
    streams: Vec<Stream>,
    /// Pages to read around faults.
    around: VecDeque<Range<u64>>,
    /// The fault from which on neighbours are read again.
    crowded: u64,
    file_pages: u64,
    /// Pages ahead of one stream, at most. Less than one: off.
    most: u64,
    /// Pages ahead of all streams together, about.
    share: u64,
    /// Pages read ahead of the next new stream.
    appetite: u64,
    faults: u64,
    used: u64,
}

impl Readahead {
    /// No streams yet in a file of this many pages. `most`: pages ahead of one stream, 0 for none. `share`: pages ahead of
    /// all of them.
    pub(super) fn new(file_pages: u64, most: u64, share: u64) -> Self {
        Self {
            recent: VecDeque::with_capacity(RECENT),
            streams: Vec::with_capacity(STREAMS),
            around: VecDeque::new(),
            crowded: 0,
            file_pages,
            most,
            share,
            appetite: FIRST,
            faults: 0,
            used: 0,
        }
    }

    /// Pages read ahead that the guest is known to have come to.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Pages that are to be read ahead now.
    pub(super) fn wanted(&self) -> u64 {
        let streams: u64 = self.streams.iter().map(|stream| stream.goal.saturating_sub(stream.filled)).sum();
        streams + self.around.iter().map(|pages| pages.end - pages.start).sum::<u64>()
    }

    /// Pages for which room should be made: what is to be read now, or the next batches of the streams that go on.
    pub(super) fn expected(&self) -> u64 {
        let next: u64 = self.live().map(|stream| stream.batch).sum();
        self.wanted().max(next.min(self.share / 2))
    }

    /// The guest asked for this page. `resident`: what the books say. They say it of the page itself if it was read ahead
    /// this very moment. Returns whether the page belongs to no stream.
    pub(super) fn fault(&mut self, page: u64, resident: impl Fn(u64) -> bool) -> bool {
        if self.most == 0 {
            return false;
        }
        self.faults += 1;
        let met = self.streams.iter().enumerate().find_map(|(index, stream)| {
            let step = stream.step(page).filter(|&step| stream.reached < step && step <= stream.goal)?;
            Some((index, step))
        });
        let Some((index, step)) = met else { return self.unmet(page) };
        let batches = self.most_now();
        let stream = &mut self.streams[index];
        if step < stream.filled && step != stream.marker && !resident(page) {
            // Read ahead, and evicted before the guest came.
            self.end(index);
            return self.unmet(page);
        }
        stream.heard = self.faults;
        self.used += stream.reach(step);
        if step >= stream.marker {
            let from = stream.goal.max(step + 1);
            stream.plan(from, (stream.batch * 2).min(batches).max(1));
            self.appetite = (self.appetite + 1).min(FIRST);
        }
        false
    }

    /// A fault that belongs to no stream: perhaps it makes one. Returns whether it does not.
    fn unmet(&mut self, page: u64) -> bool {
        let seen = |steps: i64, stride: i64| {
            page.checked_add_signed(-steps * stride).is_some_and(|before| self.recent.contains(&before))
        };
        let near = self.recent.iter().filter(|&&before| (2..=MAX_STRIDE).contains(&before.abs_diff(page)));
        let stride = [1, -1].into_iter().find(|&stride| seen(1, stride) && seen(2, stride)).or_else(|| {
            let mut strides = near.map(|&before| page as i64 - before as i64);
            strides.find(|&stride| seen(2, stride) && seen(3, stride))
        });
        if let Some(stride) = stride {
            self.begin(page, stride);
            return false;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(page);
        true
    }

    /// The neighbours of a fault that belongs to no stream are welcome too: there seems to be room for all. Where they are
    /// resident on one side, the guest came from there.
    pub(super) fn around(&mut self, page: u64, resident: impl Fn(u64) -> bool) {
        if self.faults < self.crowded {
            return;
        }
        let comes =
            |stride: i64| (1..=FIRST as i64).all(|n| page.checked_add_signed(-n * stride).is_some_and(&resident));
        if let Some(stride) = [1, -1].into_iter().find(|&stride| comes(stride)) {
            self.begin(page, stride);
        } else if self.around.len() < AROUND {
            let start = page / MAX_RUN * MAX_RUN;
            self.around.push_back(start..(start + MAX_RUN).min(self.file_pages));
        }
    }

    /// Whether neighbours wait to be read.
    pub(super) fn has_around(&self) -> bool {
        !self.around.is_empty()
    }

    /// There is no room for all: no neighbours for a while.
    pub(super) fn crowd(&mut self) {
        self.around.clear();
        self.crowded = self.faults + CROWDED;
    }

    fn begin(&mut self, page: u64, stride: i64) {
        if self.streams.len() == STREAMS
            && let Some((silent, _)) = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.heard)
        {
            self.end(silent);
        }
        let batch = self.appetite.min(self.most_now());
        let mut stream = Stream {
            origin: page,
            stride,
            reached: 0,
            filled: 1,
            goal: 1,
            marker: 1,
            batch,
            ahead: VecDeque::new(),
            used: 0,
            heard: self.faults,
        };
        stream.plan(1, batch);
        self.streams.push(stream);
    }

    /// Forgets a stream, and learns from it.
    fn end(&mut self, index: usize) {
        let stream = self.streams.swap_remove(index);
        if stream.unused() > stream.used {
            self.appetite = (self.appetite / 2).max(1);
        }
    }

    /// Pages a batch may have: what is ahead of a stream is at most that and a half.
    fn most_now(&self) -> u64 {
        let live = self.live().count().max(1);
        self.most.min(self.share / live as u64).max(1)
    }

    fn live(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(|stream| self.faults - stream.heard < SILENT)
    }

    /// The pages to read next, for the stream that has the fewest ahead of it, at most [`MAX_RUN`] in a row. They count as
    /// read from now on.
    pub(super) fn next(&mut self, resident: impl Fn(u64) -> bool) -> Option<Range<u64>> {
        loop {
            let behind = self.streams.iter_mut().filter(|stream| stream.filled < stream.goal);
            let Some(stream) = behind.min_by_key(|stream| stream.filled - stream.reached) else { break };
            if let Some(pages) = next_of(stream, self.file_pages, &resident) {
                return Some(pages);
            }
        }
        while let Some(pages) = self.around.front_mut() {
            let Some(start) = pages.find(|&page| !resident(page)) else {
                self.around.pop_front();
                continue;
            };
            let end = pages.find(|&page| resident(page)).unwrap_or(pages.end);
            return Some(start..end);
        }
        None
    }
}

/// The next pages of a stream. None: there are none before its goal, and it is filled to there.
fn next_of(stream: &mut Stream, file_pages: u64, resident: impl Fn(u64) -> bool) -> Option<Range<u64>> {
    let mut run: Option<Range<u64>> = None;
    let mut start = stream.filled;
    let mut skipped = 0;
    while stream.filled < stream.goal && run.as_ref().is_none_or(|run| run.end - run.start < MAX_RUN) {
        let step = stream.filled;
        let Some(page) = stream.page(step).filter(|&page| page < file_pages) else {
            // The end of the file: nothing is left to come.
            stream.goal = step;
            stream.marker = stream.marker.min(step);
            break;
        };
        let there = resident(page);
        let left_out = there || step == stream.marker;
        match &mut run {
            Some(_) if left_out => break,
            Some(run) if run.end == page => run.end += 1,
            Some(run) if run.start == page + 1 => run.start = page,
            Some(_) => break,
            None if left_out => start = step + 1,
            None => run = Some(page..page + 1),
        }
        if there && skipped < MAX_SKIP {
            // The guest goes past it without a fault. The batch is what comes after it.
            skipped += 1;
            stream.goal += 1;
            stream.marker += u64::from(step <= stream.marker);
        }
        stream.filled += 1;
    }
    if run.is_some() {
        stream.ahead.push_back(start..stream.filled);
    }
    run
}

#[cfg(test)]
mod tests;
