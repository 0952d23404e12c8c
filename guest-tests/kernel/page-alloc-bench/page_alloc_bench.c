// SPDX-License-Identifier: GPL-2.0
/*
 * What the page allocator costs: cycles for one allocation and free, pages at
 * once and pages in batches. Read /proc/page_alloc_bench.
 *
 * Meant for QEMU's -icount shift=0, where the time stamp counter counts guest
 * instructions, so that guests and kernels can be compared. It uses nothing of
 * the private nodes, so that kernels without them can be measured.
 */
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/sort.h>

#include <asm/msr.h>

#define ROUNDS	101
#define BATCH	64

struct way {
	const char *name;
	int (*run)(void);	/* one round; -ENOMEM */
	unsigned int per_round;	/* allocations in a round */
};

static struct page *pages[BATCH];

static int one_by_one(unsigned int order)
{
	int i;

	for (i = 0; i < BATCH; i++) {
		struct page *page = alloc_pages(GFP_HIGHUSER_MOVABLE, order);

		if (!page)
			return -ENOMEM;
		__free_pages(page, order);
	}
	return 0;
}

static int in_batches(unsigned int order)
{
	int i, rc = 0;

	for (i = 0; i < BATCH; i++) {
		pages[i] = alloc_pages(GFP_HIGHUSER_MOVABLE, order);
		if (!pages[i]) {
			rc = -ENOMEM;
			break;
		}
	}
	while (i--)
		__free_pages(pages[i], order);
	return rc;
}

static int order_0(void)
{
	return one_by_one(0);
}

static int order_2(void)
{
	return one_by_one(2);
}

static int order_0_batch(void)
{
	return in_batches(0);
}

static int order_2_batch(void)
{
	return in_batches(2);
}

static int order_0_bulk(void)
{
	unsigned long nr, i;

	memset(pages, 0, sizeof(pages));
	nr = alloc_pages_bulk_array(GFP_HIGHUSER_MOVABLE, BATCH, pages);
	for (i = 0; i < nr; i++)
		__free_page(pages[i]);
	return nr == BATCH ? 0 : -ENOMEM;
}

static const struct way ways[] = {
	{ "order 0, one at a time",		order_0,	BATCH },
	{ "order 0, 64, then free them",	order_0_batch,	BATCH },
	{ "order 0, alloc_pages_bulk of 64",	order_0_bulk,	BATCH },
	{ "order 2, one at a time",		order_2,	BATCH },
	{ "order 2, 64, then free them",	order_2_batch,	BATCH },
};

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* The median of all rounds, in tenths of a cycle an allocation; 0: no memory */
static u64 measure(const struct way *way)
{
	static u64 took[ROUNDS];
	unsigned long flags;
	int i;

	for (i = -3; i < ROUNDS; i++) {
		u64 start;
		int rc;

		/* Interrupts would be counted; preemption is off too */
		local_irq_save(flags);
		start = rdtsc_ordered();
		rc = way->run();
		start = rdtsc_ordered() - start;
		local_irq_restore(flags);
		if (rc)
			return 0;
		if (i >= 0)	/* The first rounds fill the per-cpu lists */
			took[i] = start;
	}
	sort(took, ROUNDS, sizeof(took[0]), compare, NULL);
	return div_u64(took[ROUNDS / 2] * 10, way->per_round);
}

static int page_alloc_bench_show(struct seq_file *m, void *v)
{
	u32 tenth;
	int i;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		u64 whole = div_u64_rem(measure(&ways[i]), 10, &tenth);

		seq_printf(m, "%-34s %llu.%u\n", ways[i].name, whole, tenth);
	}
	return 0;
}

static int __init page_alloc_bench_init(void)
{
	if (!proc_create_single("page_alloc_bench", 0400, NULL,
				page_alloc_bench_show))
		return -ENOMEM;
	return 0;
}

static void __exit page_alloc_bench_exit(void)
{
	remove_proc_entry("page_alloc_bench", NULL);
}

module_init(page_alloc_bench_init);
module_exit(page_alloc_bench_exit);
MODULE_DESCRIPTION("Cost of the page allocator");
MODULE_LICENSE("GPL");
