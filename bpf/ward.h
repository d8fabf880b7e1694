/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Files that matter, known by device and inode: a folder with all that lies
 * under it, and the folders on the way there. The agent keeps the list.
 */
#ifndef CURFEW_WARD_H
#define CURFEW_WARD_H

#include "kernel.h"
#include "record.h"
#include "label.h"

#define DEPTH	       64
#define NAME	       24
#define PROC_MAGIC     0x9fa0
#define SYSFS_MAGIC    0x62656572
#define CGROUP_MAGIC   0x27e0eb /* the first version */
#define CGROUP2_MAGIC  0x63677270
#define BINFMT_MAGIC   0x42494e4d
#define SECURITY_MAGIC 0x73636673

struct ward {
	__u64 dev; /* as the kernel encodes it: 12 bits major, 20 minor */
	__u64 ino;
};

enum place {
	UNDER = 1, /* ours, and what lies under it */
	WAY = 2,   /* on the way to one */
	FREE = 3,  /* under one, and yet anybody's */
	SEEN = 4, /* with one of these, or alone: who writes under it is told */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct ward);
	__type(value, __u32);
} wards SEC(".maps");

static __always_inline __u32
place_of(struct dentry *dentry)
{
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	struct ward ward = {};
	__u32 *place;

	if (!inode)
		return 0;
	ward.dev = BPF_CORE_READ(inode, i_sb, s_dev);
	ward.ino = BPF_CORE_READ(inode, i_ino);
	place = bpf_map_lookup_elem(&wards, &ward);
	return place ? *place : 0;
}

struct climb {
	struct dentry *at;
	__u32 seen; /* SEEN: what is only seen counts as well */
	__u32 found;
};

static long
climb(__u32 i, struct climb *c)
{
	struct dentry *at = c->at, *parent = BPF_CORE_READ(at, d_parent);
	__u32 place = place_of(at), is = place & ~SEEN;

	(void)i;
	if (is == UNDER || is == FREE || (place & c->seen)) {
		c->found = is != FREE;
		return 1;
	}
	if (!parent || parent == at)
		return 1;
	c->at = parent;
	return 0;
}

/* Whether a file is ours: it, or a folder above it. */
static __always_inline int protected(struct dentry *dentry)
{
	struct climb c = { .at = dentry };

	bpf_loop(DEPTH, climb, &c, 0);
	return c.found;
}

/* Whether who writes a file is told: of ours, and of those that are seen. */
static __always_inline int
witnessed(struct dentry *dentry)
{
	struct climb c = { .at = dentry, .seen = SEEN };

	bpf_loop(DEPTH, climb, &c, 0);
	return c.found;
}

/* Files by which the kernel is told to run a program for somebody, or to run,
 * kill or hinder ours. Their inodes come and go. */
static __always_inline int
is_lever(struct dentry *dentry)
{
	static const char names[][NAME] = {
		"ftrace_enabled",
		"core_pattern",
		"modprobe",
		"poweroff_cmd",
		"uevent_helper",
		"release_agent",
		"sysrq-trigger",
		"pid_max",
		"threads-max",
		"sched_rt_runtime_us",
		"file-max",
		"nr_open",
		"lockdown",
	};
	unsigned long magic = BPF_CORE_READ(dentry, d_inode, i_sb, s_magic);
	char name[NAME] = {};

	if (magic == BINFMT_MAGIC)
		return 1;
	if (magic != PROC_MAGIC && magic != SYSFS_MAGIC &&
	    magic != CGROUP_MAGIC && magic != SECURITY_MAGIC)
		return 0;
	bpf_probe_read_kernel_str(
	    name, sizeof(name), BPF_CORE_READ(dentry, d_name.name));
	for (__u32 i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!bpf_strncmp(name, sizeof(name), names[i]))
			return 1;
	return 0;
}

/* What holds short a control group above ours, or the first process's: files,
 * and groups that a service of ours would be put into, also such as come to be
 * there later. The root has none. */
static __always_inline int
is_control(struct dentry *dentry)
{
	struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
	char name[NAME] = {};

	if (BPF_CORE_READ(parent, d_inode, i_sb, s_magic) != CGROUP2_MAGIC ||
	    (place_of(parent) & ~SEEN) != WAY ||
	    parent == BPF_CORE_READ(parent, d_parent))
		return 0;
	bpf_probe_read_kernel_str(
	    name, sizeof(name), BPF_CORE_READ(dentry, d_name.name));
	return bpf_strncmp(name, sizeof(name), "cgroup.procs") &&
	       bpf_strncmp(name, sizeof(name), "cgroup.threads");
}

#endif
