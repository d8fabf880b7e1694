/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How an event goes into the ring: numbered by its session, or counted as lost.
 */
#ifndef CURFEW_TELL_H
#define CURFEW_TELL_H

#include "kernel.h"
#include "record.h"
#include "label.h"

#define RING_HEAD 8 /* that the kernel puts before a record */

/* The agent is woken by the first event behind those that it gave back, and
 * whenever the ring fills by as much again: a wake costs more than an event. */
#define WAKE	  (RING / 32)

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

/* Whether a session may put so many bytes into the ring. Once an eighth of the
 * ring is taken, nobody has more in it than there is room left: whoever floods
 * alone gets half, two of them a third each, and there is always as much for
 * somebody who does not. */
static __always_inline int
fair(struct session *s, __u64 id, __u64 used, __u64 size)
{
	__u64 *back, has;

	if (used < RING / 8)
		return 1;
	back = bpf_map_lookup_elem(&given, &id);
	has = s->bytes - (back ? *back : 0);
	if ((__s64)has < 0)
		has = 0; /* an agent that was killed counted some twice */
	return used < RING && has + size <= RING - used;
}

/* Puts a record into the ring, unless the session has its share. */
static __always_inline int
put(struct session *s, void *record, __u64 size)
{
	__u64 id = ((struct head *)record)->session;
	__u64 takes = (size + RING_HEAD + 7) & ~7ULL;
	__u64 used = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA), flags = 0;

	if (!fair(s, id, used, takes)) {
		__sync_fetch_and_add(&s->over, 1);
		return -1;
	}
	if (used / WAKE != (used + takes) / WAKE)
		flags = BPF_RB_FORCE_WAKEUP;
	if (bpf_ringbuf_output(&events, record, size, flags))
		return -1;
	__sync_fetch_and_add(&s->bytes, takes);
	return 0;
}

/* Every event that does not fit is counted: the reader turns the hole in the
 * numbers into a gap in the ledger. */
static __always_inline void
commit(struct session *s, void *record, __u64 size)
{
	if (!put(s, record, size))
		return;
	__sync_fetch_and_add(&s->lost, 1);
	COUNT(lost);
}

/* Counts an event that there was no memory for. */
static __always_inline void
lose(struct task_struct *task, __u64 session, __u32 kind)
{
	struct head head;
	struct session *s = begin(&head, kind, task, session);

	if (!s)
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
