/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Paths, written from their end to the root of all mounts of the task that
 * looks, and not to its own root: whoever is in a chroot is seen in its place.
 * bpf_d_path is not allowed in tracepoints. Names are read without a lock: a
 * rename at the same instant may show, which is why device and inode go with
 * each path.
 */
#ifndef CURFEW_PATH_H
#define CURFEW_PATH_H

#include "kernel.h"
#include "record.h"

#define NAME_MAX  255
#define NAMES_MAX 1024 /* and mounts to cross */

/* A name is written at most at CHUNK - 1 and may be NAME_MAX + 1 long. */
struct board {
	__u8 text[CHUNK + NAME_MAX + 1];
};

struct walk {
	struct board *board;
	struct dentry *dentry;
	struct vfsmount *mnt;
	__u64 at; /* where the path begins so far */
};

/* Puts one name before what is there; no room for it ends the walk. */
static __always_inline int
prepend(struct walk *w)
{
	struct dentry *dentry = w->dentry;
	__u64 len = BPF_CORE_READ(dentry, d_name.len);
	__u64 at = w->at;

	if (len > NAME_MAX || at < len + 1)
		return 1;
	at = (at - len - 1) & (CHUNK - 1);
	w->board->text[at] = '/';
	bpf_probe_read_kernel(&w->board->text[at + 1], len & NAME_MAX,
	    BPF_CORE_READ(dentry, d_name.name));
	w->at = at;
	return 0;
}

/* One step towards the root: a name, or from a mount to what it lies on. */
static long
ascend(__u32 i, struct walk *w)
{
	struct dentry *dentry = w->dentry, *parent;
	struct vfsmount *mnt = w->mnt;
	struct mount *mount, *below;

	(void)i;
	if (dentry == BPF_CORE_READ(mnt, mnt_root)) {
		mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
		below = BPF_CORE_READ(mount, mnt_parent);
		if (below == mount)
			return 1;
		w->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		w->mnt =
		    (void *)below + bpf_core_field_offset(struct mount, mnt);
		return 0;
	}
	if (prepend(w))
		return 1;
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry)
		return 1; /* a file that never had a place, as memfd's */
	w->dentry = parent;
	return 0;
}

/* Writes the path to its place at `to`, and returns its length. A path that
 * is longer than CHUNK loses its beginning. */
static __always_inline __u64
write_at(
    struct board *board, struct dentry *dentry, struct vfsmount *mnt, void *to)
{
	struct walk w = {
		.board = board, .dentry = dentry, .mnt = mnt, .at = CHUNK
	};
	__u64 at, len;

	bpf_loop(NAMES_MAX, ascend, &w, 0);
	at = w.at;
	if (at >= CHUNK) {
		at = CHUNK - 1;
		board->text[at] = '/';
	}
	len = CHUNK - at;
	barrier_var(len);
	if (len > CHUNK)
		return 0;
	bpf_probe_read_kernel(to, len, &board->text[at & (CHUNK - 1)]);
	return len;
}

static __always_inline __u64
write_path(struct board *board, struct path *path, void *to)
{
	return write_at(
	    board, BPF_CORE_READ(path, dentry), BPF_CORE_READ(path, mnt), to);
}

#endif
