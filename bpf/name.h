/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What labelled tasks do to the names of files that matter: renames, links,
 * removals, by whatever call and by io_uring. The paths are the kernel's own:
 * written where it asks the LSMs with the mount and the name that it found, and
 * told once the change has been made.
 */
#ifndef CURFEW_NAME_H
#define CURFEW_NAME_H

#include "kernel.h"
#include "record.h"
#include "label.h"
#include "path.h"
#include "ward.h"
#include "did.h"

/* What a task has asked for and the kernel is about to do. Whoever is here may
 * be put aside for another: so no buffer of the processor's. */
struct asked {
	__u64 dentry;
	struct board board;
	struct deed deed;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct asked);
} asked SEC(".maps");

/* Where a name will be, or is taken away, and where it comes from. */
struct turn {
	struct dentry *to, *from;
	struct vfsmount *to_mnt, *from_mnt;
};

/* Whether it is told what becomes of a name: with a folder on the way to what
 * matters that would go elsewhere. */
static __always_inline int
matters(struct dentry *dentry)
{
	return (place_of(dentry) & ~SEEN) == WAY || witnessed(dentry);
}

/* What the kernel was asked, if it lets it and it is told; with the first of
 * the paths. */
static __always_inline struct asked *
ask(void *ctx, __u32 what, const struct turn *t)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label *label = label_of(task);
	struct asked *a;
	__u64 ret = 0;
	int to;

	if (!label || bpf_get_func_ret(ctx, &ret) || (__u32)ret)
		return 0;
	to = matters(t->to);
	if (!to && !(t->from && matters(t->from)))
		return 0;
	a = bpf_task_storage_get(
	    &asked, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!a) {
		lose(task, label->session, DEED);
		return 0;
	}
	begin_deed(&a->deed, what);
	a->deed.number = to ? 0 : FROM_ALONE;
	a->deed.first = write_at(&a->board, t->to, t->to_mnt, a->deed.text);
	return a;
}

static __always_inline void
identify(struct deed *d, struct dentry *dentry)
{
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);

	d->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	d->ino = BPF_CORE_READ(inode, i_ino);
}

/* Adds where it comes from. */
static __always_inline void
add_from(struct asked *a, const struct turn *t)
{
	struct deed *d = &a->deed;
	__u64 at = d->first;

	identify(d, t->from);
	barrier_var(at);
	if (at <= CHUNK)
		d->second =
		    write_at(&a->board, t->from, t->from_mnt, &d->text[at]);
}

/* Tells what was asked, if it came about. */
static __always_inline int
done(void *ctx, __u64 dentry)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label *label = label_of(task);
	struct asked *a;
	__u64 ret = 0;

	if (!label)
		return 0;
	a = bpf_task_storage_get(&asked, task, 0, 0);
	/* A file system that lies over others asks them in turn. */
	if (!a || a->dentry != dentry)
		return 0;
	if (!bpf_get_func_ret(ctx, &ret) && !(__u32)ret)
		tell_deed(task, label, &a->deed);
	bpf_task_storage_delete(&asked, task);
	return 0;
}

SEC("fexit/security_path_rename")
int
may_rename(__u64 *ctx)
{
	struct path *from = (void *)ctx[0], *to = (void *)ctx[2];
	struct turn t = { .from = (void *)ctx[1], .to = (void *)ctx[3] };
	struct asked *a;

	t.from_mnt = BPF_CORE_READ(from, mnt);
	t.to_mnt = BPF_CORE_READ(to, mnt);
	a = ask(ctx, DID_RENAME, &t);
	if (!a)
		return 0;
	a->dentry = (__u64)t.from;
	a->deed.number |= (__u32)ctx[4];
	add_from(a, &t);
	return 0;
}

/* No link crosses from one mount to another. */
SEC("fexit/security_path_link")
int
may_link(__u64 *ctx)
{
	struct path *to = (void *)ctx[1];
	struct turn t = { .from = (void *)ctx[0], .to = (void *)ctx[2] };
	struct asked *a;

	t.from_mnt = t.to_mnt = BPF_CORE_READ(to, mnt);
	a = ask(ctx, DID_LINK, &t);
	if (!a)
		return 0;
	a->dentry = (__u64)t.to;
	add_from(a, &t);
	return 0;
}

SEC("fexit/security_path_symlink")
int
may_symlink(__u64 *ctx)
{
	struct path *at = (void *)ctx[0];
	struct turn t = { .to = (void *)ctx[1] };
	struct asked *a;
	__u64 to;
	long n;

	t.to_mnt = BPF_CORE_READ(at, mnt);
	a = ask(ctx, DID_SYMLINK, &t);
	if (!a)
		return 0;
	a->dentry = (__u64)t.to;
	to = a->deed.first;
	barrier_var(to);
	if (to > CHUNK)
		return 0;
	n = bpf_probe_read_kernel_str(&a->deed.text[to], CHUNK, (void *)ctx[2]);
	if (n > 1 && n <= CHUNK)
		a->deed.second = n - 1;
	return 0;
}

static __always_inline int
may_remove(__u64 *ctx)
{
	struct path *at = (void *)ctx[0];
	struct turn t = { .to = (void *)ctx[1] };
	struct asked *a;

	t.to_mnt = BPF_CORE_READ(at, mnt);
	a = ask(ctx, DID_REMOVE, &t);
	if (!a)
		return 0;
	a->dentry = (__u64)t.to;
	identify(&a->deed, t.to);
	return 0;
}

SEC("fexit/security_path_unlink")
int
may_unlink(__u64 *ctx)
{
	return may_remove(ctx);
}

SEC("fexit/security_path_rmdir")
int
may_rmdir(__u64 *ctx)
{
	return may_remove(ctx);
}

SEC("fexit/vfs_rename")
int
did_rename(__u64 *ctx)
{
	struct renamedata *data = (void *)ctx[0];

	return done(ctx, (__u64)BPF_CORE_READ(data, old_dentry));
}

SEC("fexit/vfs_link")
int
did_link(__u64 *ctx)
{
	return done(ctx, ctx[3]);
}

SEC("fexit/vfs_symlink")
int
did_symlink(__u64 *ctx)
{
	return done(ctx, ctx[2]);
}

SEC("fexit/vfs_unlink")
int
did_unlink(__u64 *ctx)
{
	return done(ctx, ctx[2]);
}

SEC("fexit/vfs_rmdir")
int
did_rmdir(__u64 *ctx)
{
	return done(ctx, ctx[2]);
}

#endif
