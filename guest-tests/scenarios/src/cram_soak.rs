//! Ten minutes of mixed load on a tier that is often full, in cpusets, with compaction, pins and swinging pressure. Every second,
//! the counts of kernel, device and programs must agree.

use cxl_cram_lab::prelude::*;
use cxl_cram_lab::wire::memory::Range as Pages;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_soak",
    story: "ten minutes of filling, freeing, cooling, moving, racing, direct I/O on a tier that is often full; every second all books agree",
    needs: &[Need::Cram, Need::Config("MEMCG"), Need::Config("ZSWAP")],
    // What arrives between a crossing and the driver's reaction must fit: the low watermark is above what the window may hold
    // dirty plus what a reclaim copies during a flush.
    devices: &[DeviceShape {
        capacity: 256 << 20,
        physical: 48 << 20,
        cache: 16 << 20,
        more: &["--low-watermark", "40%", "--high-watermark", "50%", "--flush-interval", "50"],
        ..DeviceShape::USUAL
    }],
    machine: MachineShape { scratch_mib: Some(512), ..MachineShape::USUAL },
    limit: Duration::from_secs(15 * 60),
    by_name: true,
    run,
};

const LASTS: Duration = Duration::from_secs(10 * 60);
const CHECK: Duration = Duration::from_secs(1);
const BYTES: u64 = 24 << 20;
const PAGES: u64 = BYTES / 4096;
/// Fills the tier by pages, and takes little media.
const BALLAST: u64 = 200 << 20;
const BALLAST_DATA: Pattern = Pattern::Compressible { seed: 7, ratio: 32.0 };
/// Pages by which the kernel's counts may lag, because they are on the processors' lists.
const SLACK: u64 = 1024;
const LIMIT: Duration = Duration::from_secs(120);
/// For direct I/O: the disk writes and reads the programs' pages, pinned meanwhile.
const DISK: &str = "/dev/vda";

/// A program, its memory, and the memory's content.
struct Tenant {
    memory: Memory,
    map: Mapping,
    content: Pattern,
}

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("a tier, swap, three programs in a cgroup");
    lab.swap_on_zram(400)?;
    let cram = lab.cram()?;
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    let group = lab.cgroup("soak")?;
    let mut tenants = Vec::new();
    for _ in 0..3 {
        let mut memory = lab.memory_in(&group)?;
        let map = memory.map_anywhere(BYTES)?;
        memory.fill(map.all(), &Pattern::Zero, LIMIT)?;
        tenants.push(Tenant { memory, map, content: Pattern::Zero });
    }
    let mut ballast = lab.guest.memory()?;
    let weight = ballast.map_anywhere(BALLAST)?;
    ballast.fill(weight.all(), &BALLAST_DATA, LIMIT)?;
    let mut racer = lab.guest.memory()?;
    let racing = racer.map_anywhere(64 * 4096)?;

    lab.step("the load");
    let (begin, mut checked, mut chance, mut operations, mut checks) =
        (Instant::now(), Instant::now(), 1u64, 0u64, 0u64);
    while begin.elapsed() < LASTS {
        // Knuth's MMIX generator: the same load every time.
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (what, which) = ((chance >> 33) % 15, (chance >> 50) as usize % tenants.len());
        let tenant = &mut tenants[which];
        let part = tenant.map.pages((chance >> 40) % (PAGES / 2), PAGES / 2);
        match what {
            0 | 1 => tenant.refill(Pattern::Compressible { seed: chance, ratio: 4.0 })?,
            2 => tenant.refill(Pattern::Random { seed: chance })?,
            3 => lab.reclaim(&group, BYTES)?,
            4 => lab.reclaim(&group, BYTES / 4)?,
            5 => place(&mut tenant.memory, part, &cram)?,
            6 => drop(tenant.memory.touch(part, true, 1, LIMIT)?),
            7 => {
                tenant.memory.free(tenant.map)?;
                tenant.map = tenant.memory.map_anywhere(BYTES)?;
                tenant.refill(Pattern::Compressible { seed: chance, ratio: 2.0 })?;
            }
            8 => {
                let raced = racer.race(racing.all(), (1, 1), 200, cram.node, LIMIT)?;
                ensure!(raced.lost + raced.torn + raced.backward == 0, "stores were lost: {raced:?}");
            }
            9 => place(&mut ballast, weight.all(), &cram)?,
            10 => drop(lab.sh("echo 1 > /proc/sys/vm/compact_memory")?),
            11 => {
                let pages = tenant.map.pages((chance >> 40) % (PAGES / 2), 64);
                tenant.memory.read_direct(pages, DISK, &tenant.content, LIMIT)?;
            }
            12 => {
                let pages = tenant.map.pages((chance >> 40) % (PAGES / 2), 64);
                let verdict = tenant.memory.write_direct(pages, DISK, &tenant.content, LIMIT)?;
                ensure!(verdict.clean(), "the disk got wrong contents: {:?}", verdict.first);
            }
            13 => cram.set(lab, Tunable::WritablePermille, [0, 20, 100][(chance >> 60) as usize % 3])?,
            _ => {
                let watermarks = if chance >> 60 & 1 == 0 { (40.0, 50.0) } else { (60.0, 70.0) };
                lab.device().set_watermarks(watermarks.0, watermarks.1)?;
            }
        }
        operations += 1;
        if checked.elapsed() >= CHECK {
            checked = Instant::now();
            check(lab, &cram, &group, &mut tenants).with_context(|| format!("after {operations} operations"))?;
            checks += 1;
        }
    }
    lab.figure("operations", operations);
    lab.figure("checks", checks);
    let counts = cram.counts(lab)?;
    lab.figure(
        "demoted, promoted and copied, evicted",
        format!("{}, {}, {}", counts.demoted, counts.promoted + counts.copied, counts.evicted),
    );
    lab.figure("crossings", format!("{:?}", lab.device().status()?.crossings));
    lab.fact("the load went on to the end", checks > 20 && operations > 100);
    lab.fact("pages came, were written, were evicted", [counts.demoted > 0, counts.promoted > 0, counts.evicted > 0]);

    lab.step("all of it is read");
    let mut all = Verdict::default();
    for Tenant { memory, map, content } in &mut tenants {
        all.add(memory.verify(map.all(), content, LIMIT)?);
    }
    all.add(ballast.verify(weight.all(), &BALLAST_DATA, LIMIT)?);
    lab.fact("pages wrong at the end", all.pages_wrong + all.pages_poisoned);

    lab.step("all of it is freed");
    drop((tenants, racer, ballast));
    cram.wait(lab, "the tier to be empty", |counts| counts.used_pages < SLACK && counts.held == 0)?;
    let status = lab.device().status()?;
    lab.fact("the device is empty", status.logical <= SLACK * 4096);
    lab.fact("stores lost, bytes poisoned", [status.overflows, status.poisoned]);
    Ok(())
}

/// Moves pages to the tier. While the device asks for room, or all pages are used, the tier takes none.
fn place(memory: &mut Memory, pages: Pages, cram: &Cram) -> Result<()> {
    let result = errno(memory.move_pages(pages, &[cram.node], LIMIT))?;
    ensure!(["done", "ENOMEM"].contains(&result.as_str()), "move_pages: {result}");
    Ok(())
}

impl Tenant {
    fn refill(&mut self, content: Pattern) -> Result<()> {
        self.memory.fill(self.map.all(), &content, LIMIT)?;
        self.content = content;
        Ok(())
    }
}

/// Checks what must always hold, and the memory of one program.
fn check(lab: &mut Lab, cram: &Cram, group: &Cgroup, tenants: &mut [Tenant]) -> Result<()> {
    let counts = cram.settled(lab)?;
    let (mut near, mut far, mut gone) = (0, 0, 0);
    for Tenant { memory, map, .. } in tenants.iter_mut() {
        let nodes = memory.nodes(map.all())?;
        near += nodes.on(0);
        far += nodes.on(cram.node);
        gone += nodes.absent.values().sum::<u64>();
    }
    let (anon, swapped) = (lab.stat(group, "anon")? / 4096, lab.figure_of(group, "memory.swap.current")? / 4096);
    let held = tenants.len() as u64 * PAGES;
    ensure!(near + far + gone == held, "{near} + {far} + {gone} pages of {held}");
    ensure!(anon + swapped + SLACK >= held, "the cgroup has {anon} pages and {swapped} in swap, of {held}");
    ensure!(swapped + SLACK >= gone, "{gone} pages are away, and {swapped} are in swap");
    ensure!(anon <= near + far + SLACK, "the cgroup has {anon} pages, the programs {near} + {far}");
    let there = lab.numa_stat(group, "anon", cram.node)? / 4096;
    ensure!(there.abs_diff(far) < SLACK, "the cgroup has {there} pages on the tier, the programs {far}");
    ensure!(
        counts.used_pages + SLACK >= far,
        "{} pages of the tier are used, the programs have {far}",
        counts.used_pages
    );
    let status = lab.device().status()?;
    let stored = status.logical / 4096;
    ensure!(
        stored.abs_diff(counts.used_pages) < SLACK,
        "the device stores {stored} pages, of {} used",
        counts.used_pages
    );
    ensure!(
        status.used <= status.physical && status.overflows == 0 && status.poisoned == 0,
        "media ran out: {status:?}"
    );
    lab.sample("books, 1000 pages: in DRAM", near as f64 / 1000.0);
    lab.sample("books, 1000 pages: on the tier", far as f64 / 1000.0);
    lab.sample("books, 1000 pages: in swap", gone as f64 / 1000.0);
    let Some(Tenant { memory, map, content }) = tenants.first_mut() else { return Ok(()) };
    let verdict = memory.verify(map.all(), content, LIMIT)?;
    ensure!(verdict.clean(), "contents are wrong: {:?}", verdict.first);
    tenants.rotate_left(1);
    Ok(())
}
