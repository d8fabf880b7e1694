/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How an event goes into the ring: numbered by its session, or counted as lost.
 */
#ifndef CURFEW_TELL_H
#define CURFEW_TELL_H

#include "kernel.h"
#include "record.h"
#include "label.h"

/* Numbers an event. Without its session it could not be told from others. */
static __always_inline struct session *
begin(struct head *h, __u32 kind, struct task_struct *task, __u64 id)
{
	struct session *s = bpf_map_lookup_elem(&sessions, &id);

	if (!s) {
		COUNT(orphans);
		return 0;
	}
	h->kind = kind;
	h->tgid = task->tgid;
	h->session = id;
	h->seq = __sync_fetch_and_add(&s->made, 1) + 1;
	h->boot_ns = bpf_ktime_get_boot_ns();
	COUNT(made);
	return s;
}

/* Every event that does not fit is counted: the reader turns the hole in the
 * numbers into a gap in the ledger. */
static __always_inline void
commit(struct session *s, void *record, __u64 size)
{
	if (!bpf_ringbuf_output(&events, record, size, BPF_RB_NO_WAKEUP))
		return;
	__sync_fetch_and_add(&s->lost, 1);
	COUNT(lost);
}

static __always_inline void
tell_change(
    struct task_struct *task, __u64 session, struct change *c, __u32 kind)
{
	struct session *s = begin(&c->head, kind, task, session);

	if (s)
		commit(s, c, sizeof(*c));
}

#endif
