//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What keeps a granted root from taking Curfew away before the end: labelled
 * tasks may not signal, trace or limit the agent, limit the first process, use
 * bpf(), load modules or another kernel, set the clock, or change the files
 * that we live by. Nobody else is asked anything, and a session whose role says
 * so is not.
 *
 * It refuses and tells; before the end it kills nobody. What a labelled task
 * has somebody else do, the first process above all, it does not see:
 * docs/threat-model.md.
 */
#include "kernel.h"
#include "record.h"
#include "label.h"
#include "who.h"
#include "tell.h"
#include "ward.h"

#define PTRACE_MODE_ATTACH 0x02
#define CAP_SYS_TIME	   25
#define FIRMWARE	   1 /* of what the kernel reads: a device's, not code */
#define SPREAD		   0x1e0000 /* MS_UNBINDABLE, _PRIVATE, _SLAVE, _SHARED */
#define OTHER		   0x1020   /* MS_BIND, MS_REMOUNT */
#define MOVE		   0x2000   /* MS_MOVE */
#define BEFORE_MOVE	   0x1e1020 /* flags that the kernel looks at first */
#define SET_FLAGS	   0x6602   /* of ioctl(2), without the size */
#define SET_XATTR	   0x5820
#define F_SETSIG	   10 /* of fcntl(2) */
#define F_SETLEASE	   1024
#define F_UNLCK		   2
#define FIRST_FREE	   35 /* a signal, of real time: those below end the agent */
#define FREEZE_DISK	   0x5877 /* FIFREEZE */
#define STOP_DISK	   0x587d /* EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN */
#define ASKED		   0x170000 /* FAN_OPEN_PERM and its like: each wants an answer */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Of a process that is not to be touched. */
enum mark {
	OURS = 1,  /* no signals, no tracing, no limits */
	FIRST = 2, /* the host's first process, which starts us: no limits */
};

const enum act *unused_act __attribute__((unused));
const enum mark *unused_mark __attribute__((unused));

/* The agent marks itself, and the first process. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} marks SEC(".maps");

/* Sessions whose role lets them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u32);
} trusted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct refusals);
} guarded SEC(".maps");

/* Where the hook has the dentry: Linux 6.3 put the mount's ids before it. */
const volatile __u32 setattr_has_ids = 1;

/* The label of the task that asks, if it is guarded. */
static __always_inline struct label *
held(void)
{
	struct label *label = label_of(bpf_get_current_task_btf());

	if (!label || bpf_map_lookup_elem(&trusted, &label->session))
		return 0;
	return label;
}

static __always_inline int
refuse(struct label *label, __u32 act)
{
	struct refusals *r = bpf_map_lookup_elem(&guarded, &zero);
	struct task_struct *task = bpf_get_current_task_btf();
	struct change c = {};

	if (label->session == PROBE) {
		if (r)
			__sync_fetch_and_add(&r->proved, 1);
		return -EPERM;
	}
	if (r)
		__sync_fetch_and_add(&r->made, 1);
	if (ended(label->session)) {
		COUNT(killed); /* the other gate may not be asked any more */
		bpf_send_signal(SIGKILL);
	}
	describe(&c.process, task);
	c.process.old = c.process.ids;
	c.code = act;
	tell_change(task, label->session, &c, REFUSED);
	return -EPERM;
}

/* Whether it has to stay where it is. */
static __always_inline int
stays(struct dentry *dentry)
{
	return (place_of(dentry) & ~SEEN) == WAY || protected(dentry);
}

#define HOOK(hook) SEC("lsm/" #hook) int guard_##hook(__u64 *ctx)

/* A hook that refuses whatever it is asked about. */
#define NEVER(hook, act)                                                       \
	HOOK(hook)                                                             \
	{                                                                      \
		struct label *label = held();                                  \
                                                                               \
		(void)ctx;                                                     \
		return label ? refuse(label, act) : 0;                         \
	}

/* A hook that refuses what is about one file of ours. */
#define FILE_AT(hook, n, act)                                                  \
	HOOK(hook)                                                             \
	{                                                                      \
		struct label *label = held();                                  \
                                                                               \
		if (!label || !protected((void *)ctx[n]))                      \
			return 0;                                              \
		return refuse(label, act);                                     \
	}

/* A hook that refuses what is about a process that is marked, up to a mark. */
#define PROCESS(hook, act, when, most)                                         \
	HOOK(hook)                                                             \
	{                                                                      \
		struct task_struct *task = (void *)ctx[0];                     \
		struct label *label = held();                                  \
		__u32 mark;                                                    \
                                                                               \
		if (!label || !(when))                                         \
			return 0;                                              \
		mark = mark_of(task);                                          \
		return mark && mark <= (most) ? refuse(label, act) : 0;        \
	}

static __always_inline __u32
mark_of(struct task_struct *task)
{
	__u32 *mark = bpf_task_storage_get(&marks, task, 0, 0);

	if (!mark && task->group_leader)
		mark = bpf_task_storage_get(&marks, task->group_leader, 0, 0);
	return mark ? *mark : 0;
}

PROCESS(task_kill, SIGNAL, ctx[2], OURS)
PROCESS(ptrace_access_check, TRACE, ctx[1] & PTRACE_MODE_ATTACH, OURS)
PROCESS(task_setscheduler, LIMIT, 1, FIRST)
PROCESS(task_setnice, LIMIT, 1, FIRST)
PROCESS(task_setrlimit, LIMIT, 1, FIRST)
PROCESS(task_setioprio, LIMIT, 1, FIRST)

/* By F_SETSIG an open file sends whoever it belongs to, as by F_SETOWN, any
 * signal, and the kernel asks task_kill nothing. Go takes none of 32 and 34. Of
 * the argument, Linux looks at 32 bits since 6.5. By F_SETLEASE whoever opens
 * the file waits until she lets go: of one that every program reads, the host.
 */
HOOK(file_fcntl)
{
	__u32 cmd = ctx[1], arg = ctx[2];
	int signal = cmd == F_SETSIG && arg && arg < FIRST_FREE;
	struct label *label;

	if (!signal && (cmd != F_SETLEASE || arg == F_UNLCK))
		return 0;
	label = held();
	return label ? refuse(label, signal ? SIGNAL : HOLD) : 0;
}

NEVER(bpf, BPF)
NEVER(kernel_module_request, MODULE)
NEVER(settime, CLOCK)
NEVER(sb_pivotroot, MOUNT)

/* adjtimex(2), the hardware's clock. */
HOOK(capable)
{
	struct label *label;

	if (ctx[2] != CAP_SYS_TIME)
		return 0;
	label = held();
	return label ? refuse(label, CLOCK) : 0;
}

HOOK(kernel_read_file)
{
	struct label *label = held();

	return label && ctx[1] != FIRMWARE ? refuse(label, MODULE) : 0;
}

HOOK(kernel_load_data)
{
	struct label *label = held();

	return label && ctx[0] != FIRMWARE ? refuse(label, MODULE) : 0;
}

FILE_AT(inode_create, 1, WRITE)
FILE_AT(inode_mknod, 1, WRITE)
FILE_AT(inode_symlink, 1, WRITE)
FILE_AT(inode_unlink, 1, REMOVE)
FILE_AT(inode_rmdir, 1, REMOVE)
FILE_AT(inode_setxattr, 1, ATTRIBUTES)
FILE_AT(inode_removexattr, 1, ATTRIBUTES)
FILE_AT(inode_set_acl, 1, ATTRIBUTES)
FILE_AT(inode_remove_acl, 1, ATTRIBUTES)
FILE_AT(inode_file_setattr, 0, ATTRIBUTES)

HOOK(inode_mkdir)
{
	struct dentry *dentry = (struct dentry *)ctx[1];
	struct label *label = held();

	if (!label || (!protected(dentry) && !is_control(dentry)))
		return 0;
	return refuse(label, WRITE);
}

HOOK(inode_setattr)
{
	void *first = (void *)ctx[0], *second = (void *)ctx[1];
	struct label *label = held();

	barrier_var(first); /* the verifier wants each read at its own place */
	barrier_var(second);
	if (!label || !protected(setattr_has_ids ? second : first))
		return 0;
	return refuse(label, ATTRIBUTES);
}

HOOK(inode_link)
{
	struct label *label = held();

	if (!label ||
	    (!protected((void *)ctx[0]) && !protected((void *)ctx[2])))
		return 0;
	return refuse(label, WRITE);
}

HOOK(inode_rename)
{
	struct label *label = held();

	if (!label || (!stays((void *)ctx[1]) && !stays((void *)ctx[3])))
		return 0;
	return refuse(label, RENAME);
}

HOOK(file_open)
{
	struct file *file = (struct file *)ctx[0];
	struct dentry *dentry;
	struct label *label;

	if (!(file->f_mode & FMODE_WRITE))
		return 0;
	label = held();
	dentry = BPF_CORE_READ(file, f_path.dentry);
	if (!label ||
	    (!protected(dentry) && !is_lever(dentry) && !is_control(dentry)))
		return 0;
	return refuse(label, WRITE);
}

/* Flags, as that a file cannot be changed any more, and to have whoever
 * writes to a file system of ours wait, or fail. */
static __always_inline int
flags(__u64 *ctx)
{
	struct file *file = (struct file *)ctx[0];
	__u32 cmd = ctx[1] & 0xffff;
	struct dentry *root;
	struct label *label;

	if (cmd != SET_FLAGS && cmd != SET_XATTR && cmd != FREEZE_DISK &&
	    cmd != STOP_DISK)
		return 0;
	label = held();
	if (!label)
		return 0;
	if (cmd == FREEZE_DISK || cmd == STOP_DISK) {
		root = BPF_CORE_READ(file, f_path.dentry, d_sb, s_root);
		return stays(root) ? refuse(label, FREEZE) : 0;
	}
	if (!protected(BPF_CORE_READ(file, f_path.dentry)))
		return 0;
	return refuse(label, ATTRIBUTES);
}

HOOK(file_ioctl)
{
	return flags(ctx);
}

/* Of programs of 32 bits, since Linux 6.8. */
HOOK(file_ioctl_compat)
{
	return flags(ctx);
}

/* To be asked before anybody opens a file, and answer nobody. */
HOOK(path_notify)
{
	struct label *label;

	if (!(ctx[1] & ASKED))
		return 0;
	label = held();
	return label ? refuse(label, HOLD) : 0;
}

/* How changes spread between mounts hides nothing: unshare(1) changes it. With
 * MS_BIND or MS_REMOUNT the kernel does that, and passes over the spread. With
 * MS_MOVE what moves is named by a text that we do not follow: none may. */
HOOK(sb_mount)
{
	struct path *at = (struct path *)ctx[1];
	struct label *label = held();
	int spread = ctx[3] & SPREAD && !(ctx[3] & OTHER);

	if (!label || spread)
		return 0;
	if (!(ctx[3] & MOVE && !(ctx[3] & BEFORE_MOVE)) &&
	    !stays(BPF_CORE_READ(at, dentry)))
		return 0;
	return refuse(label, MOUNT);
}

HOOK(move_mount)
{
	struct path *from = (struct path *)ctx[0], *to = (struct path *)ctx[1];
	struct label *label = held();

	if (!label || (!stays(BPF_CORE_READ(from, dentry)) &&
			  !stays(BPF_CORE_READ(to, dentry))))
		return 0;
	return refuse(label, MOUNT);
}

HOOK(sb_umount)
{
	struct vfsmount *mnt = (struct vfsmount *)ctx[0];
	struct label *label = held();

	if (!label || !stays(BPF_CORE_READ(mnt, mnt_root)))
		return 0;
	return refuse(label, MOUNT);
}
