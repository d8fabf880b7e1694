/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who a task belongs to, and whether that has ended: asked by all programs in
 * the same words.
 */
#ifndef CURFEW_LABEL_H
#define CURFEW_LABEL_H

#include "kernel.h"
#include "record.h"

static const __u32 zero = 0;

#define COUNT(field)                                                           \
	do {                                                                   \
		struct sums *t_;                                               \
		t_ = bpf_map_lookup_elem(&totals, &zero);                      \
		if (t_)                                                        \
			__sync_fetch_and_add(&t_->field, 1);                   \
	} while (0)

/* A pidfd labels the leader of a thread group only: threads that were there
 * before the label count as their leader does. */
static __always_inline struct label *
label_of(struct task_struct *task)
{
	struct label *label = bpf_task_storage_get(&labels, task, 0, 0);

	if (!label && task->group_leader)
		label = bpf_task_storage_get(&labels, task->group_leader, 0, 0);
	return label;
}

static __always_inline int
ended(__u64 session)
{
	struct end *end = bpf_map_lookup_elem(&ends, &session);

	if (!end)
		return 0;
	return end->dying ||
	       (end->deadline_boot_ns &&
		   bpf_ktime_get_boot_ns() >= end->deadline_boot_ns);
}

#endif
