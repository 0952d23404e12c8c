//! The list against a model that keeps each line by itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const BLOCKS: u64 = 24;
const END: u64 = BLOCKS * BLOCK_SIZE as u64;

/// Each line's source, and whether it was written back in part.
#[derive(Clone)]
struct Model(Vec<Option<(PoisonSource, bool)>>);

impl Model {
    fn lines(&mut self, block: u64, mask: u64) -> impl Iterator<Item = &mut Option<(PoisonSource, bool)>> {
        let lines = self.0.iter_mut().skip((block * LINES_PER_BLOCK) as usize).take(LINES_PER_BLOCK as usize);
        lines.enumerate().filter(move |(line, _)| mask >> line & 1 != 0).map(|(_, line)| line)
    }

    fn injected(&self) -> usize {
        self.0.iter().flatten().filter(|(source, _)| *source == PoisonSource::Injected).count()
    }

    /// The runs of a range of lines.
    fn runs(&self, lines: Range<u64>) -> Vec<PoisonRecord> {
        let mut runs: Vec<PoisonRecord> = Vec::new();
        for line in lines {
            let Some((source, _)) = self.0[line as usize] else { continue };
            let run = PoisonRecord { dpa: line * LINE_SIZE, length: LINE_SIZE, source };
            match runs.last_mut() {
                Some(last) if last.continues(&run) => last.length += LINE_SIZE,
                _ => runs.push(run),
            }
        }
        runs
    }
}

#[derive(Clone, Debug)]
enum Step {
    Lose(u64),
    Inject(u64, u64),
    Clear(u64, u64),
    WrittenInPart(u64, u64),
    ClearBlocks(u64, u64),
}

/// Mostly few blocks and round masks, so that neighbours become alike.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mask = prop_oneof![3 => Just(u64::MAX), 1 => Just(0xff), 1 => any::<u64>()];
    let step = prop_oneof![
        5 => (0..BLOCKS).prop_map(Step::Lose),
        2 => (0..BLOCKS, 0..LINES_PER_BLOCK).prop_map(|(block, line)| Step::Inject(block, line)),
        2 => (0..BLOCKS, mask.clone()).prop_map(|(block, mask)| Step::Clear(block, mask)),
        2 => (0..BLOCKS, mask).prop_map(|(block, mask)| Step::WrittenInPart(block, mask)),
        1 => (0..BLOCKS, 0..BLOCKS).prop_map(|(block, count)| Step::ClearBlocks(block, count)),
    ];
    prop::collection::vec(step, 1..120)
}

fn take(list: &mut PoisonList, model: &mut Model, step: &Step) {
    match *step {
        Step::Lose(block) => {
            list.lose(block);
            model.lines(block, u64::MAX).for_each(|line| *line = Some((PoisonSource::Internal, false)));
        }
        Step::Inject(block, line) => {
            let known = model.lines(block, 1 << line).next().unwrap();
            let source = known.map_or(PoisonSource::Injected, |(source, _)| source);
            *known = Some((source, false));
            assert_eq!(list.inject(block, line), Ok(()));
        }
        Step::Clear(block, mask) => {
            list.clear(block, mask);
            model.lines(block, mask).for_each(|line| *line = None);
        }
        Step::WrittenInPart(block, mask) => {
            list.written_in_part(block, mask);
            model.lines(block, mask).flatten().for_each(|(_, partial)| *partial = true);
        }
        Step::ClearBlocks(block, count) => {
            let blocks = block..(block + count).min(BLOCKS);
            list.clear_blocks(blocks.clone());
            blocks.for_each(|block| model.lines(block, u64::MAX).for_each(|line| *line = None));
        }
    }
}

proptest! {
    #[test]
    fn the_list_is_what_a_list_of_single_lines_is(
        steps in steps(),
        ranges in prop::collection::vec((0..END, 0..END, 1..40_usize), 1..8),
    ) {
        let (mut list, mut model) = (PoisonList::default(), Model(vec![None; (BLOCKS * LINES_PER_BLOCK) as usize]));
        for step in &steps {
            take(&mut list, &mut model, step);
            prop_assert_eq!(list.bytes(), model.0.iter().flatten().count() as u64 * LINE_SIZE);
            prop_assert_eq!(list.injected as usize, model.injected());
        }
        for block in 0..BLOCKS {
            let bits = |of: fn((PoisonSource, bool)) -> bool| {
                (0..LINES_PER_BLOCK).fold(0, |mask, line| {
                    let known = model.0[(block * LINES_PER_BLOCK + line) as usize];
                    mask | u64::from(known.is_some_and(of)) << line
                })
            };
            prop_assert_eq!(list.mask(block), bits(|_| true));
            prop_assert_eq!(list.hidden(block), bits(|(_, partial)| !partial));
        }
        for (start, end, most) in ranges.into_iter().chain([(0, END, usize::MAX)]) {
            let expected = model.runs(start / LINE_SIZE..if start < end { end.div_ceil(LINE_SIZE) } else { 0 });
            // Page by page, each with as many as asked for until the last.
            let (mut from, mut listed) = (start, Vec::new());
            loop {
                let page = list.page(from..end, most);
                prop_assert!(page.records.len() <= most);
                listed.extend(page.records.iter().copied());
                let Some(rest) = page.rest else { break };
                prop_assert_eq!(page.records.len(), most);
                prop_assert!(rest > from);
                from = rest;
            }
            prop_assert_eq!(listed, expected);
        }
    }
}

#[test]
fn blocks_lost_in_a_row_are_one_entry_in_whatever_order_they_are_lost() {
    const MANY: u64 = 1 << 20;
    let mut list = PoisonList::default();
    (0..MANY).step_by(2).for_each(|block| list.lose(block));
    assert_eq!(list.blocks.entries() as u64, MANY / 2);
    (0..MANY).rev().for_each(|block| list.lose(block));
    assert_eq!(list.blocks.entries(), 1);
    // Written back whole, with the pattern still in every line.
    (0..MANY).for_each(|block| list.written_in_part(block, u64::MAX));
    assert_eq!(list.blocks.entries(), 1);
    assert_eq!(list.bytes(), MANY * BLOCK_SIZE as u64);
    list.clear_blocks(1..MANY - 1);
    assert_eq!((list.blocks.entries(), list.bytes()), (2, 2 * BLOCK_SIZE as u64));
}

#[test]
fn a_long_list_comes_in_pages_that_are_bounded_although_they_make_one_record() {
    let mut list = PoisonList::default();
    let blocks = 3 * PoisonList::MAX_STEPS as u64;
    for block in 0..blocks {
        list.lose(block);
        // Neighbours differ, so that none are one entry; the record is one all the same.
        list.written_in_part(block, block % 2);
    }
    let (mut from, mut pages, mut length) = (0, 0, 0);
    loop {
        let page = list.page(from..u64::MAX, 10);
        assert_eq!(page.records.len(), 1);
        (pages, length) = (pages + 1, length + page.records[0].length);
        let Some(rest) = page.rest else { break };
        assert_eq!(rest, page.records[0].dpa + page.records[0].length);
        from = rest;
    }
    assert_eq!((pages, length), (3, blocks * BLOCK_SIZE as u64));
}

#[test]
fn a_record_is_no_longer_than_its_length_can_express() {
    const CAPACITY: u64 = 8 << 40;
    let mut list = PoisonList::default();
    list.blocks.set(0..CAPACITY / BLOCK_SIZE as u64, Lines::LOST);
    let page = list.page(0..CAPACITY, 1000);
    assert_eq!(page.rest, None);
    assert_eq!(page.records.iter().map(|record| record.length).sum::<u64>(), CAPACITY);
    for record in page.records {
        assert!(record.length / LINE_SIZE <= u64::from(u32::MAX), "{record:?}");
        assert_eq!(record.dpa % BLOCK_SIZE as u64, 0);
    }
}

#[test]
fn no_more_lines_than_the_limit_are_injected() {
    let mut list = PoisonList::default();
    for line in 0..PoisonList::MAX_INJECTED as u64 {
        assert_eq!(list.inject(line / 8, line % 8), Ok(()));
    }
    assert_eq!(list.inject(1000, 0), Err(ListFull));
    assert_eq!(list.inject(0, 0), Ok(()), "it is there already");
    list.lose(0);
    assert_eq!(list.inject(1000, 0), Ok(()));
}
