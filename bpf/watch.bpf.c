//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Labels and events. Every process of a granted session carries the session's
 * id in task storage, from its parent at fork; what labelled processes run is
 * told through one ring. These programs copy and count; deciding is the
 * agent's work. The one thing they do by themselves is to end what forks or
 * execs in a session that is over, so that no fork bomb outruns the killer,
 * and none lives longer because the agent is dead.
 */
#include "kernel.h"

#define CHUNK 4096 /* bytes of argv or path in one record */
#define MAX_CHUNKS 520 /* of argv: the kernel's own limit is 2 MiB */
#define DEPTH 48 /* names in a path */
#define SIGKILL 9

enum kind { EXEC = 1, EXIT = 2, SETID = 3, DATA = 4 };
enum which { ARGV = 1, CWD = 2, EXE = 3 };

struct ids {
	__u32 uid, euid, gid, egid;
};

struct label {
	__u64 session;
	struct ids ids; /* as of the last event */
};

/* The kernel's own count of a session; the agent only makes and drops it. */
struct session {
	__u64 seq; /* number of the last event made */
	__u64 lost; /* records that did not fit */
};

/* When a session ends; the agent's to write. */
struct end {
	__u64 deadline_boot_ns; /* 0: none */
	__u64 dying; /* not 0: it ends now */
};

/* The head of every record. */
struct head {
	__u64 session, seq, boot_ns;
	__u32 kind, pid, ppid, tgid;
};

struct exec {
	struct head head;
	struct ids old, new;
	__u64 device, inode;
	__u64 argv_len;
	__u32 links, pad;
	__u8 comm[16];
	__u8 tty[64];
	__u8 file[256];
};

struct leave {
	struct head head;
	struct ids ids;
	__u64 lasted_ns;
	__u32 code, pad;
	__u8 comm[16];
};

struct setid {
	struct head head;
	struct ids old, new;
	__u8 comm[16];
};

struct data {
	struct head head;
	__u32 which, len;
	__u64 offset;
	__u8 bytes[CHUNK];
};

struct tally {
	__u64 sent, lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct label);
} labels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct session);
} sessions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct end);
} ends SEC(".maps");

/* How far the agent has read each session: kept here so that the next agent
 * sees a hole between the two. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} read_upto SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} ring SEC(".maps");

/* Every record that did not fit is counted: what is lost is never lost
 * silently. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tally);
} counts SEC(".maps");

/* The generation of programs that works. A new agent attaches its own and
 * then turns this by one write: no fork goes by unlabelled, and no event is
 * told twice. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} active SEC(".maps");

/* Tracepoint programs cannot be preempted by one another on a CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct data);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec);
} execs SEC(".maps");

/* Named here so that their layout is in the BTF, for Go. */
const struct leave *unused_leave __attribute__((unused));
const struct setid *unused_setid __attribute__((unused));

const volatile __u64 generation = 0;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int
on(void)
{
	__u32 zero = 0;
	__u64 *now = bpf_map_lookup_elem(&active, &zero);

	return now && *now == generation;
}

/* Only the thread-group leader was labelled through its pidfd: its threads
 * count as it does. */
static __always_inline struct label *
label_of(struct task_struct *task)
{
	struct label *l = bpf_task_storage_get(&labels, task, 0, 0);

	if (!l && task->group_leader)
		l = bpf_task_storage_get(&labels, task->group_leader, 0, 0);
	/* Session 0 is the agent's test of itself. */
	if (l && !l->session)
		return 0;
	return l;
}

static __always_inline void
send(void *record, __u32 size, struct session *s)
{
	__u32 zero = 0;
	struct tally *c = bpf_map_lookup_elem(&counts, &zero);
	long err = bpf_ringbuf_output(&ring, record, size, BPF_RB_NO_WAKEUP);

	if (err)
		__sync_fetch_and_add(&s->lost, 1);
	if (c && err)
		c->lost++;
	else if (c)
		c->sent++;
}

static __always_inline void
read_ids(struct task_struct *task, struct ids *ids)
{
	const struct cred *cred = BPF_CORE_READ(task, cred);

	ids->uid = BPF_CORE_READ(cred, uid.val);
	ids->euid = BPF_CORE_READ(cred, euid.val);
	ids->gid = BPF_CORE_READ(cred, gid.val);
	ids->egid = BPF_CORE_READ(cred, egid.val);
}

/* The pid as the task's own pid namespace has it. */
static __always_inline __u32
pid_of(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	struct upid upid = {};
	unsigned int level = BPF_CORE_READ(pid, level);
	unsigned long at = bpf_core_field_offset(struct pid, numbers) +
	    level * bpf_core_type_size(struct upid);

	bpf_probe_read_kernel(&upid, sizeof(upid), (void *)pid + at);
	return upid.nr;
}

static __always_inline void
fill(struct head *h, struct task_struct *task, __u32 kind, __u64 session,
    struct session *s)
{
	h->session = session;
	h->seq = __sync_fetch_and_add(&s->seq, 1) + 1;
	h->boot_ns = bpf_ktime_get_boot_ns();
	h->kind = kind;
	h->pid = pid_of(task);
	h->ppid = pid_of(BPF_CORE_READ(task, real_parent));
	h->tgid = BPF_CORE_READ(task, tgid);
}

/* A session whose end nobody wrote down is over. */
static __always_inline int
over(__u64 session)
{
	struct end *e = bpf_map_lookup_elem(&ends, &session);

	return !e || e->dying ||
	    (e->deadline_boot_ns &&
	        bpf_ktime_get_boot_ns() >= e->deadline_boot_ns);
}

/* A change of ids is told at the task's next fork, exec or exit. */
static __always_inline void
tell_ids(struct task_struct *task, struct label *l, struct session *s)
{
	struct setid e = {};

	read_ids(task, &e.new);
	if (!__builtin_memcmp(&e.new, &l->ids, sizeof(e.new)))
		return;
	e.old = l->ids;
	l->ids = e.new;
	BPF_CORE_READ_STR_INTO(&e.comm, task, comm);
	fill(&e.head, task, SETID, l->session, s);
	send(&e, sizeof(e), s);
}

SEC("tp_btf/sched_process_fork")
int
BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct label *l, *c;
	struct session *s;

	if (!on())
		return 0;
	l = label_of(parent);
	if (!l)
		return 0;
	c = bpf_task_storage_get(&labels, child, l,
	    BPF_LOCAL_STORAGE_GET_F_CREATE);
	s = bpf_map_lookup_elem(&sessions, &l->session);
	if (s && !c)
		__sync_fetch_and_add(&s->lost, 1);
	if (s)
		tell_ids(parent, l, s);
	if (c)
		c->ids = l->ids;
	if (over(l->session))
		bpf_send_signal(SIGKILL);
	return 0;
}

struct walk {
	struct data *d;
	struct dentry *dentry;
	struct mount *mount;
	__u32 len;
};

/* One name of a path, from its end towards the root; crosses mounts. */
static long
step(__u32 i, struct walk *w)
{
	struct dentry *dentry = w->dentry;
	struct mount *mount = w->mount;
	struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
	__u32 at = w->len;
	long n;

	if (dentry == BPF_CORE_READ(mount, mnt.mnt_root) || dentry == parent) {
		struct mount *up = BPF_CORE_READ(mount, mnt_parent);

		if (up == mount)
			return 1;
		w->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		w->mount = up;
		return 0;
	}
	if (at >= CHUNK / 2)
		return 1;
	n = bpf_probe_read_kernel_str(&w->d->bytes[at & (CHUNK / 2 - 1)], 256,
	    BPF_CORE_READ(dentry, d_name.name));
	if (n <= 0)
		return 1;
	w->len = at + n;
	w->dentry = parent;
	return 0;
}

/* The names of a path, last first, each with its NUL. */
static __always_inline void
tell_path(struct head *h, struct path *p, __u32 which, struct session *s)
{
	__u32 zero = 0, len;
	struct data *d = bpf_map_lookup_elem(&scratch, &zero);
	struct walk w = { .d = d };

	if (!d)
		return;
	w.dentry = BPF_CORE_READ(p, dentry);
	w.mount = (void *)BPF_CORE_READ(p, mnt) -
	    bpf_core_field_offset(struct mount, mnt);
	bpf_loop(DEPTH, step, &w, 0);
	len = w.len;
	if (len > CHUNK / 2 + 256)
		return;
	d->head = *h;
	d->head.kind = DATA;
	d->which = which;
	d->len = len;
	d->offset = 0;
	send(d, __builtin_offsetof(struct data, bytes) + len, s);
}

struct copy {
	struct head *head;
	struct session *s;
	unsigned long from, left;
	__u64 offset;
};

static long
chunk(__u32 i, struct copy *c)
{
	__u32 zero = 0;
	__u64 len = c->left;
	struct data *d = bpf_map_lookup_elem(&scratch, &zero);

	/* The verifier has to see the bound on the register that is used. */
	barrier_var(len);
	if (len > CHUNK)
		len = CHUNK;
	if (!d || !len)
		return 1;
	/* The new image has not run yet and nothing else has its memory: what
	 * is read here is what the kernel copied. A page that is not there is
	 * a cut, which the reader sees from the length. */
	if (bpf_probe_read_user(d->bytes, len, (void *)c->from))
		return 1;
	d->head = *c->head;
	d->head.kind = DATA;
	d->which = ARGV;
	d->len = len;
	d->offset = c->offset;
	send(d, __builtin_offsetof(struct data, bytes) + len, c->s);
	c->from += len;
	c->offset += len;
	c->left -= len;
	return 0;
}

static __always_inline void
tell_argv(struct exec *e, struct task_struct *task, struct session *s)
{
	struct copy c = { .head = &e->head, .s = s };

	c.from = BPF_CORE_READ(task, mm, arg_start);
	c.left = e->argv_len;
	bpf_loop(MAX_CHUNKS, chunk, &c, 0);
}

/* What the kernel has of the new image, but for its paths and arguments. */
static __always_inline void
describe(struct exec *e, struct task_struct *task, struct linux_binprm *bprm)
{
	struct file *file = BPF_CORE_READ(bprm, file);

	e->inode = BPF_CORE_READ(file, f_inode, i_ino);
	e->device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
	e->links = BPF_CORE_READ(file, f_inode, i_nlink);
	e->argv_len = BPF_CORE_READ(task, mm, arg_end) -
	    BPF_CORE_READ(task, mm, arg_start);
	e->tty[0] = 0;
	e->file[0] = 0;
	BPF_CORE_READ_STR_INTO(&e->comm, task, comm);
	BPF_CORE_READ_STR_INTO(&e->tty, task, signal, tty, name);
	bpf_probe_read_kernel_str(e->file, sizeof(e->file),
	    BPF_CORE_READ(bprm, filename));
}

SEC("tp_btf/sched_process_exec")
int
BPF_PROG(on_exec, struct task_struct *task, int old_pid,
    struct linux_binprm *bprm)
{
	__u32 zero = 0;
	struct exec *e = bpf_map_lookup_elem(&execs, &zero);
	struct label *l;
	struct session *s;
	struct file *file;
	struct fs_struct *fs;

	if (!e || !on())
		return 0;
	l = label_of(task);
	if (!l)
		return 0;
	s = bpf_map_lookup_elem(&sessions, &l->session);
	if (!s)
		return 0;
	read_ids(task, &e->new);
	e->old = l->ids;
	l->ids = e->new;
	describe(e, task, bprm);
	fill(&e->head, task, EXEC, l->session, s);
	send(e, sizeof(*e), s);
	file = BPF_CORE_READ(bprm, file);
	fs = BPF_CORE_READ(task, fs);
	tell_path(&e->head, &file->f_path, EXE, s);
	tell_path(&e->head, &fs->pwd, CWD, s);
	tell_argv(e, task, s);
	if (over(l->session))
		bpf_send_signal(SIGKILL);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int
BPF_PROG(on_exit, struct task_struct *task)
{
	struct leave e = {};
	struct label *l;
	struct session *s;

	if (!on())
		return 0;
	l = label_of(task);
	/* Only the last thread's exit is the process's. */
	if (!l || BPF_CORE_READ(task, signal, live.counter))
		return 0;
	s = bpf_map_lookup_elem(&sessions, &l->session);
	if (!s)
		return 0;
	tell_ids(task, l, s);
	e.ids = l->ids;
	e.code = BPF_CORE_READ(task, signal, group_exit_code);
	if (!e.code)
		e.code = BPF_CORE_READ(task, exit_code);
	e.lasted_ns = bpf_ktime_get_boot_ns() -
	    BPF_CORE_READ(task, group_leader, start_boottime);
	BPF_CORE_READ_STR_INTO(&e.comm, task, comm);
	fill(&e.head, task, EXIT, l->session, s);
	send(&e, sizeof(e), s);
	return 0;
}
