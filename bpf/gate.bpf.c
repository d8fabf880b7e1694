//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The lock that refuses: a labelled task whose session is over may not begin
 * anything, and dies of the try. It needs no agent and no timer. Programs
 * attach without an error and never run where "bpf" is not among the active
 * LSMs: the agent sees one refuse before it says that they do.
 *
 * What a task had before its end it keeps: open files, connections, memory.
 * One that sleeps or spins tries nothing. This is the fence around what is
 * left to be killed; the kill is another lock's.
 */
#include "kernel.h"
#include "record.h"
#include "label.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct refusals);
} refused SEC(".maps");

/* What a hook answers. Where a program before ours refused, ours is not
 * asked: there is no earlier answer to keep. */
static __always_inline int
gate(void)
{
	struct label *label = label_of(bpf_get_current_task_btf());
	struct refusals *r;

	if (!label || !ended(label->session))
		return 0;
	r = bpf_map_lookup_elem(&refused, &zero);
	if (!r)
		return -EPERM;
	if (label->session == PROBE) {
		__sync_fetch_and_add(&r->proved, 1);
	} else {
		__sync_fetch_and_add(&r->made, 1);
		COUNT(killed);
	}
	bpf_send_signal(SIGKILL);
	return -EPERM;
}

#define GATE(hook)                                                             \
	SEC("lsm/" #hook)                                                      \
	int on_##hook(void *ctx)                                               \
	{                                                                      \
		(void)ctx;                                                     \
		return gate();                                                 \
	}

/* Another image, other ids, more rights. */
GATE(bprm_check_security)
GATE(task_fix_setuid)
GATE(task_fix_setgid)
GATE(task_fix_setgroups)
GATE(capset)
GATE(capable)
GATE(userns_create)

/* What is on the disk. */
GATE(inode_create)
GATE(inode_link)
GATE(inode_unlink)
GATE(inode_symlink)
GATE(inode_mkdir)
GATE(inode_rmdir)
GATE(inode_mknod)
GATE(inode_rename)
GATE(inode_setattr)
GATE(inode_setxattr)

/* Others. */
GATE(ptrace_access_check)
GATE(ptrace_traceme)
GATE(task_kill)
GATE(socket_create)
GATE(socket_connect)

/* The machine: kexec comes by the loads. */
GATE(sb_mount)
GATE(sb_umount)
GATE(move_mount)
GATE(kernel_module_request)
GATE(kernel_read_file)
GATE(kernel_load_data)
GATE(bpf)
GATE(settime)

/* To read is not refused: a process on its way out still reads. */
SEC("lsm/file_open")
int
on_file_open(__u64 *ctx)
{
	struct file *file = (struct file *)ctx[0];

	return file->f_mode & FMODE_WRITE ? gate() : 0;
}
