/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who a task is: its ids, its numbers and its name, as records tell them. */
#ifndef CURFEW_WHO_H
#define CURFEW_WHO_H

#include "kernel.h"
#include "record.h"

/* What somebody may in a user namespace of her own is no privilege. */
static __always_inline __u64
caps_of(const struct cred *cred)
{
	__u64 caps = 0;

	if (BPF_CORE_READ(cred, user_ns, level))
		return 0;
	bpf_probe_read_kernel(&caps, sizeof(caps),
	    (void *)cred + bpf_core_field_offset(struct cred, cap_permitted));
	return caps;
}

static __always_inline void
read_ids(struct task_struct *task, struct ids *ids)
{
	const struct cred *cred = BPF_CORE_READ(task, cred);

	ids->caps = caps_of(cred);
	ids->uid = BPF_CORE_READ(cred, uid.val);
	ids->euid = BPF_CORE_READ(cred, euid.val);
	ids->gid = BPF_CORE_READ(cred, gid.val);
	ids->egid = BPF_CORE_READ(cred, egid.val);
}

/* Who logged in, whatever ids the task took since (pam_loginuid(8)): ~0 for
 * nobody, as for what the first process started. */
static __always_inline __u32
login_of(struct task_struct *task)
{
	if (!bpf_core_field_exists(struct task_struct, loginuid))
		return ~0U;
	return BPF_CORE_READ(task, loginuid.val);
}

/* The number of a pid in the namespace at a level. */
static __always_inline struct upid
number_at(struct pid *pid, __u32 level)
{
	struct upid upid = {};

	bpf_probe_read_kernel(&upid, sizeof(upid),
	    (void *)pid + bpf_core_field_offset(struct pid, numbers) +
		level * bpf_core_type_size(struct upid));
	return upid;
}

static __always_inline void
read_pids(struct task_struct *task, struct process *p)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	struct pid *parent =
	    BPF_CORE_READ(task, real_parent, group_leader, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid own = number_at(pid, level), other;

	p->pid = own.nr;
	p->ppid = 0; /* as getppid(2) says of a parent in another namespace */
	if (BPF_CORE_READ(parent, level) < level)
		return;
	other = number_at(parent, level);
	if (other.ns == own.ns)
		p->ppid = other.nr;
}

static __always_inline void
describe(struct process *p, struct task_struct *task)
{
	read_pids(task, p);
	read_ids(task, &p->ids);
	bpf_probe_read_kernel(p->comm, sizeof(p->comm), &task->comm);
}

#endif
