/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who has no label and gains privilege: somebody's login, not root's, that
 * comes by uid 0 or by capabilities through an exec, a set*id call, or in a way
 * that nobody saw. Each process is told once.
 */
#ifndef CURFEW_GAIN_H
#define CURFEW_GAIN_H

#include "kernel.h"
#include "record.h"
#include "label.h"
#include "who.h"
#include "tell.h"
#include "exec.h"

#define NOBODY	   (~0U)
#define LEVELS_MAX 8

/* Processes whose gain was told. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} gains SEC(".maps");

/* The pid namespace of the agent. What runs in another one, and not below, is
 * another host's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} home SEC(".maps");

/* Whether the agent sees a process, and by which number. */
static __always_inline int
at_home(struct pid *pid, struct number *number)
{
	struct upid upid;
	__u32 *ns = bpf_map_lookup_elem(&home, &zero);
	__u32 level = BPF_CORE_READ(pid, level);

	if (!ns)
		return 0;
	number->ns = *ns;
	for (__u32 i = 0; i < LEVELS_MAX && i <= level; i++) {
		upid = number_at(pid, i);
		number->pid = upid.nr;
		if (BPF_CORE_READ(upid.ns, ns.inum) == number->ns)
			return 1;
	}
	return 0;
}

static __always_inline int
privileged(const struct cred *cred)
{
	return !BPF_CORE_READ(cred, euid.val) ||
	       !BPF_CORE_READ(cred, uid.val) || caps_of(cred);
}

/* Whether the privilege is news. Real ids that are not root's beside
 * privilege come from a file that gives it; those of root are told if whoever
 * started this is nobody privileged. */
static __always_inline int
gained(struct task_struct *task)
{
	const struct cred *cred = BPF_CORE_READ(task, cred);
	const struct cred *parents = BPF_CORE_READ(task, real_parent, cred);

	if (!privileged(cred))
		return 0;
	return BPF_CORE_READ(cred, uid.val) || !privileged(parents);
}

/* Tells of the gain, once: of an exec, or without one of a change of ids that
 * made it root. Whoever goes down from root and keeps capabilities, as service
 * managers do for a moment, gains nothing. */
static __always_inline void
tell_gain(struct task_struct *task, struct linux_binprm *bprm)
{
	__u32 login = login_of(task);
	__u64 *told;
	struct change c = {};
	struct ids old = {};
	struct number number = {};

	if (login == NOBODY || !login || !gained(task) ||
	    !at_home(BPF_CORE_READ(task, thread_pid), &number))
		return;
	if (!task->group_leader ||
	    (!bprm && BPF_CORE_READ(task, cred, uid.val)))
		return;
	told = bpf_task_storage_get(
	    &gains, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!told || __sync_val_compare_and_swap(told, 0, 1))
		return;
	/* What it was before is gone: the login says who it was. */
	read_ids(task, &c.process.ids);
	old.uid = old.euid = login;
	old.gid = old.egid = c.process.ids.gid;
	if (bprm) {
		tell_exec(task, bprm, STRANGERS, &old);
		return;
	}
	describe(&c.process, task);
	c.process.old = old;
	c.code = login;
	tell_change(task, STRANGERS, &c, SETID);
}

#endif
