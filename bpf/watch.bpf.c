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
 * Each event is told once even while two versions of these programs are
 * attached, as they are when one agent follows another: what was told is
 * written into the label, and the second version finds it there.
 */
#include "kernel.h"
#include "record.h"
#include "label.h"
#include "path.h"
#include "who.h"
#include "tell.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Named so that their layout is in the BTF, for Go. */
const struct change *unused_change __attribute__((unused));
const enum kind *unused_kind __attribute__((unused));
const struct task *unused_task __attribute__((unused));
const struct number *unused_number __attribute__((unused));

/* Who exited of late, for whoever comes too late to see what a process was. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct number);
	__type(value, struct gone);
} exits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec);
} exec_buffer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct argv);
} argv_buffer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct board);
} path_buffer SEC(".maps");

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
	__u64 have[2], want[2], *at = (void *)&label->ids;
	int changed = 0;

	_Static_assert(sizeof(want) == sizeof(*ids), "two words");
	__builtin_memcpy(have, &label->ids, sizeof(have));
	__builtin_memcpy(want, ids, sizeof(want));
	if (have[0] != want[0])
		changed |= __sync_val_compare_and_swap(
			       &at[0], have[0], want[0]) == have[0];
	if (have[1] != want[1])
		changed |= __sync_val_compare_and_swap(
			       &at[1], have[1], want[1]) == have[1];
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

struct pieces {
	struct exec *exec;
	__u64 from, left, offset;
};

/* Sends one piece of argv. The new image has not run yet and nobody else has
 * its memory: what is read is what the kernel copied. */
static long
piece(__u32 i, struct pieces *p)
{
	struct argv *a = bpf_map_lookup_elem(&argv_buffer, &zero);
	__u64 len = p->left;

	(void)i;
	barrier_var(len); /* the verifier has to see the bound of this one */
	if (len > CHUNK)
		len = CHUNK;
	if (!a || !len)
		return 1;
	a->head = p->exec->head;
	a->head.kind = ARGV;
	a->offset = p->offset;
	a->len = len;
	if (bpf_probe_read_user(a->text, len, (void *)p->from) ||
	    bpf_ringbuf_output(&events, a,
		__builtin_offsetof(struct argv, text) + len,
		BPF_RB_NO_WAKEUP)) {
		COUNT(cut);
		return 1; /* the reader sees what is missing from argv_len */
	}
	p->from += len;
	p->offset += len;
	p->left -= len;
	return 0;
}

/* Writes argv after the first `at` bytes of text, or sends it in pieces. */
static __always_inline __u64
write_argv(struct exec *e, struct mm_struct *mm, __u64 at)
{
	__u64 from = BPF_CORE_READ(mm, arg_start);
	__u64 len = BPF_CORE_READ(mm, arg_end) - from;
	struct pieces p = { .exec = e, .from = from, .left = len };

	e->argv_len = len;
	e->argv_here = 0;
	if (len > CHUNK) {
		bpf_loop(PARTS_MAX, piece, &p, 0);
		return 0;
	}
	barrier_var(len);
	if (len > CHUNK || at > 3 * CHUNK)
		return 0;
	if (bpf_probe_read_user(&e->text[at], len, (void *)from)) {
		COUNT(cut);
		return 0;
	}
	e->argv_here = len;
	return len;
}

static __always_inline __u64
write_paths(struct exec *e, struct linux_binprm *bprm, struct fs_struct *fs)
{
	struct board *board = bpf_map_lookup_elem(&path_buffer, &zero);
	__u64 at, len;
	long n;

	e->path_len = e->cwd_len = e->name_len = 0;
	if (!board)
		return 0;
	at = write_path(board, &BPF_CORE_READ(bprm, file)->f_path, fs, e->text);
	e->path_len = at;
	barrier_var(at);
	if (at > CHUNK)
		return 0;
	len = write_path(board, &fs->pwd, fs, &e->text[at]);
	e->cwd_len = len;
	at += len;
	barrier_var(at);
	if (at > 2 * CHUNK)
		return 0;
	n = bpf_probe_read_kernel_str(
	    &e->text[at], CHUNK, BPF_CORE_READ(bprm, filename));
	if (n <= 1 || n > CHUNK)
		return at;
	e->name_len = n - 1;
	return at + n - 1;
}

static __always_inline void
identify(struct exec *e, struct linux_binprm *bprm, struct task_struct *task)
{
	struct inode *inode = BPF_CORE_READ(bprm, file, f_inode);

	e->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	e->ino = BPF_CORE_READ(inode, i_ino);
	e->links = BPF_CORE_READ(inode, i_nlink);
	e->tty[0] = 0;
	bpf_probe_read_kernel_str(e->tty, sizeof(e->tty),
	    BPF_CORE_READ(task, signal, tty)
		? &BPF_CORE_READ(task, signal, tty)->name
		: 0);
}

static __always_inline void
tell_exec(
    struct label *label, struct task_struct *task, struct linux_binprm *bprm)
{
	struct exec *e = bpf_map_lookup_elem(&exec_buffer, &zero);
	struct session *s;
	__u64 at;

	if (!e)
		return;
	s = begin(&e->head, EXEC, task, label->session);
	if (!s)
		return;
	describe(&e->process, task);
	e->process.old = label->ids;
	label->ids = e->process.ids;
	identify(e, bprm, task);
	at = write_paths(e, bprm, BPF_CORE_READ(task, fs));
	at += write_argv(e, BPF_CORE_READ(task, mm), at);
	barrier_var(at);
	if (at > sizeof(e->text))
		at = sizeof(e->text);
	commit(s, e, __builtin_offsetof(struct exec, text) + at);
}

SEC("tp_btf/sched_process_exec")
int
on_exec(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct label *label = label_of(task);

	if (!label)
		return 0;
	if (label->told_exec != task->self_exec_id) {
		label->told_exec = task->self_exec_id;
		label->since_boot_ns = bpf_ktime_get_boot_ns();
		tell_exec(label, task, (void *)ctx[2]);
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

/* Keeps it by its number in a pid namespace. */
static __always_inline void
keep_at(struct pid *pid, __u32 level, const struct gone *g)
{
	struct upid upid = number_at(pid, level);
	struct number number = {
		.ns = BPF_CORE_READ(upid.ns, ns.inum),
		.pid = upid.nr,
	};

	bpf_map_update_elem(&exits, &number, g, BPF_ANY);
}

/* An agent reads numbers in its own namespace: the first one of the machine,
 * or that of a container that it shares with those it watches. */
static __always_inline void
keep_gone(struct task_struct *task, const struct label *label)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct gone g = {};

	if (label)
		g.session = label->session;
	describe(&g.process, task);
	g.process.old = g.process.ids;
	keep_at(pid, level, &g);
	if (level)
		keep_at(pid, 0, &g);
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
	keep_gone(task, label);
	if (!label)
		return 0;
	if (__sync_val_compare_and_swap(&label->told_exit, 0, 1))
		return 0;
	count_late(label->session);
	describe(&c.process, task);
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

/* The calls that change uids and gids: on x86-64, on arm64 and, for programs of
 * 32 bits, on i386 and arm, which number them alike. A number that means
 * something else on another of these costs a look and nothing more. */
#define BIT(n) (1ULL << ((n) % 64))

static __always_inline int
sets_ids(__u64 nr)
{
	switch (nr / 64) {
	case 0:
		return !!(BIT(nr) & (BIT(23) | BIT(46)));
	case 1:
		return !!(BIT(nr) & (BIT(70) | BIT(71) | BIT(105) | BIT(106) |
					BIT(113) | BIT(114) | BIT(117) |
					BIT(119) | BIT(122) | BIT(123)));
	case 2:
		return !!(
		    BIT(nr) & (BIT(138) | BIT(139) | BIT(143) | BIT(144) |
				  BIT(145) | BIT(146) | BIT(147) | BIT(149) |
				  BIT(151) | BIT(152) | BIT(164) | BIT(170)));
	case 3:
		return !!(
		    BIT(nr) & (BIT(203) | BIT(204) | BIT(208) | BIT(210) |
				  BIT(213) | BIT(214) | BIT(215) | BIT(216)));
	}
	return 0;
}

/* The number of the call that ends, from where this machine's kernel keeps it.
 * What the machine's registers do not have is cut out as the program loads. */
static __always_inline __u64
call_of(struct pt_regs *regs)
{
	if (bpf_core_field_exists(regs->syscallno))
		return (__u32)regs->syscallno;
	return regs->orig_ax;
}

SEC("tp_btf/sys_exit")
int
on_sys_exit(__u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	struct task_struct *task;
	struct label *label;

	if (!sets_ids(call_of(regs)))
		return 0;
	task = bpf_get_current_task_btf();
	label = label_of(task);
	if (!label)
		return 0;
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
