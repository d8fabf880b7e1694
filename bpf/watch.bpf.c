//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Labels and events. Every task of a granted session carries the session's id
 * in task storage, from its parent at fork; what labelled processes do is told
 * through one ring. These programs copy and count; deciding is the agent's
 * work. The one thing they do by themselves is to kill what forks, execs or
 * changes its ids in a session that has ended: so no fork bomb outruns the
 * killer, and none lives longer because the agent is dead.
 *
 * Execs, exits and changes of ids are told once even while two versions of
 * these programs are attached, as they are when one agent follows another: what
 * was told is written into the label, and the second version finds it there.
 */
#include "kernel.h"
#include "record.h"
#include "label.h"
#include "who.h"
#include "tell.h"
#include "exec.h"
#include "deed.h"
#include "gain.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Named so that their layout is in the BTF, for Go. */
const struct change *unused_change __attribute__((unused));
const enum kind *unused_kind __attribute__((unused));
const struct task *unused_task __attribute__((unused));
const struct number *unused_number __attribute__((unused));
const enum did *unused_did __attribute__((unused));
const enum place *unused_place __attribute__((unused));

/* Who exited of late, for whoever comes too late to see what a process was. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct number);
	__type(value, struct gone);
} exits SEC(".maps");

/* The label of the process, which says what was told of it. */
static __always_inline struct label *
process_label(struct task_struct *task)
{
	if (!task->group_leader)
		return 0;
	return bpf_task_storage_get(&labels, task->group_leader, 0, 0);
}

static __always_inline void
kill_current(void)
{
	COUNT(killed);
	bpf_send_signal(SIGKILL);
}

static __always_inline void
kill_child(struct task_struct *child)
{
	if (bpf_send_signal_task)
		bpf_send_signal_task(child, SIGKILL, PIDTYPE_TGID, 0);
}

/* Writes ids into the label, and says whether they were news. Of threads that
 * change at the same time one succeeds. */
static __always_inline int
news(struct label *label, const struct ids *ids)
{
	__u64 have[3], want[3], *at = (void *)&label->ids;
	int changed = 0;

	_Static_assert(sizeof(want) == sizeof(*ids), "three words");
	__builtin_memcpy(have, &label->ids, sizeof(have));
	__builtin_memcpy(want, ids, sizeof(want));
	for (int i = 0; i < 3; i++)
		if (have[i] != want[i])
			changed |= __sync_val_compare_and_swap(
				       &at[i], have[i], want[i]) == have[i];
	return changed;
}

/* Tells that the process has other ids than were last told of it. When all
 * threads change, as setuid(3) has them do, the first one tells. */
static __always_inline void
tell_ids(struct task_struct *task)
{
	struct label *label = process_label(task);
	struct change c = {};

	if (!label)
		return;
	read_ids(task, &c.process.ids);
	c.process.old = label->ids;
	if (!news(label, &c.process.ids))
		return;
	describe(&c.process, task);
	tell_change(task, label->session, &c, SETID);
}

SEC("tp_btf/sched_process_fork")
int
on_fork(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	struct label *from = label_of(parent), *label;
	struct label fresh = {};

	if (!from)
		return 0;
	fresh.session = from->session;
	fresh.ids = from->ids;
	fresh.since_boot_ns = bpf_ktime_get_boot_ns();
	fresh.told_exec = from->told_exec;
	label = bpf_task_storage_get(
	    &labels, child, &fresh, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!label) {
		/* What cannot carry the label does not live. */
		COUNT(strays);
		kill_child(child);
		return 0;
	}
	if (ended(fresh.session)) {
		kill_child(child);
		kill_current();
	}
	return 0;
}

/* The last look before the image changes: here a thread that is not the
 * leader gets a label of its own, as it is about to become the leader, and
 * ids that changed unseen are told. */
SEC("tp_btf/sched_prepare_exec")
int
on_prepare(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct label *label = label_of(task);
	struct label own;

	if (!label)
		return 0;
	tell_ids(task);
	own = *label;
	if (!bpf_task_storage_get(
		&labels, task, &own, BPF_LOCAL_STORAGE_GET_F_CREATE)) {
		COUNT(strays);
		kill_current();
	}
	return 0;
}

SEC("tp_btf/sched_process_exec")
int
on_exec(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct label *label = label_of(task);
	struct ids old;

	if (!label) {
		tell_gain(task, (void *)ctx[2]);
		return 0;
	}
	if (label->told_exec != task->self_exec_id) {
		label->told_exec = task->self_exec_id;
		label->since_boot_ns = bpf_ktime_get_boot_ns();
		old = label->ids;
		read_ids(task, &label->ids);
		tell_exec(task, (void *)ctx[2], label->session, &old);
	}
	if (ended(label->session))
		kill_current();
	return 0;
}

/* What exits in a session that is over was ended with it. */
static __always_inline void
count_late(__u64 session)
{
	struct session *s = bpf_map_lookup_elem(&sessions, &session);

	if (s && ended(session))
		__sync_fetch_and_add(&s->late, 1);
}

/* Keeps who exited by the number that the agent knows it by, if any: what runs
 * in none of its pid namespaces is another host's. */
static __always_inline void
keep_gone(const struct process *process, struct pid *pid, struct label *label)
{
	struct gone g = { .process = *process };
	struct number number = {};

	if (!at_home(pid, &number))
		return;
	if (label)
		g.session = label->session;
	g.process.old = g.process.ids;
	bpf_map_update_elem(&exits, &number, &g, BPF_ANY);
}

SEC("tp_btf/sched_process_exit")
int
on_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct label *label = process_label(task);
	struct change c = {};
	__u64 since;

	/* The last thread's exit is the process's. */
	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	describe(&c.process, task);
	keep_gone(
	    &c.process, BPF_CORE_READ(task, group_leader, thread_pid), label);
	if (!label)
		return 0;
	if (__sync_val_compare_and_swap(&label->told_exit, 0, 1))
		return 0;
	count_late(label->session);
	c.process.old = label->ids;
	c.code = BPF_CORE_READ(task, group_leader, exit_code);
	if (BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT)
		c.code = BPF_CORE_READ(task, signal, group_exit_code);
	since = label->since_boot_ns;
	if (!since)
		since = BPF_CORE_READ(task, group_leader, start_boottime);
	c.lasted_ns = bpf_ktime_get_boot_ns() - since;
	tell_change(task, label->session, &c, EXIT);
	return 0;
}

SEC("tp_btf/sys_exit")
int
on_sys_exit(__u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	__u32 what = told_call(regs);
	struct task_struct *task;
	struct label *label;

	if (!what)
		return 0;
	task = bpf_get_current_task_btf();
	label = label_of(task);
	if (!label) {
		if (what == DID_IDS)
			tell_gain(task, 0);
		return 0;
	}
	if (what != DID_IDS) {
		tell_call(task, label, regs, what, ctx[1]);
		return 0;
	}
	tell_ids(task);
	if (ended(label->session))
		kill_current();
	return 0;
}

/* Tells of every labelled thread that lives, in the pid namespace of whoever
 * reads. Whoever made a fork bomb hides nothing from it. */
SEC("iter/task")
int
tasks(struct bpf_iter__task *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task, *reader;
	struct label *label;
	struct task t = {};

	if (!task || task->exit_state)
		return 0;
	label = label_of(task);
	if (!label)
		return 0;
	reader = bpf_get_current_task_btf();
	t.session = label->session;
	t.pid = number_at(BPF_CORE_READ(task, group_leader, thread_pid),
	    BPF_CORE_READ(reader, thread_pid, level))
		    .nr;
	bpf_seq_write(seq, &t, sizeof(t));
	return 0;
}
