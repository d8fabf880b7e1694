/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is told of an exec: once the new image is there and has not run yet, so
 * that nobody else has its memory and what is read is what the kernel copied.
 */
#ifndef CURFEW_EXEC_H
#define CURFEW_EXEC_H

#include "kernel.h"
#include "record.h"
#include "label.h"
#include "path.h"
#include "who.h"
#include "tell.h"

#define VARIABLES_MAX 8192

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

/* The variables that are told: those by which other code runs than the image
 * says, and those that say where it came from. None of them holds a secret. */
#define CHOSEN(b, name) (!bpf_strncmp((b), sizeof(name) - 1, (name)))

static __always_inline int
chosen(const char *text)
{
	static const char loader[] = "LD_", sudo[] = "SUDO_",
			  path[] = "PATH=", command[] = "SSH_ORIGINAL_COMMAND=",
			  script[] = "BASH_ENV=";

	switch (text[0]) {
	case 'L':
		return CHOSEN(text, loader);
	case 'S':
		return CHOSEN(text, sudo) || CHOSEN(text, command);
	case 'P':
		return CHOSEN(text, path);
	case 'B':
		return CHOSEN(text, script);
	}
	return 0;
}

struct environment {
	struct exec *exec; /* how far it got is there: see the verifier */
	__u64 from, end;
};

/* Looks at one variable, and keeps it if it is one of the chosen. */
static long
variable(__u32 i, struct environment *v)
{
	struct board *b = bpf_map_lookup_elem(&path_buffer, &zero);
	struct exec *e = v->exec;
	__u64 at = e->env_len;
	__u32 inside = e->inside;
	long n;

	(void)i;
	if (!b || v->from >= v->end)
		return 1;
	n = bpf_probe_read_user_str(b->text, CHUNK, (void *)v->from);
	if (n <= 0 || n > CHUNK)
		return 1;
	e->inside = n == CHUNK;
	v->from += n == CHUNK ? n - 1 : n;
	if (inside || !chosen((void *)b->text))
		return 0;
	if (n == CHUNK || at + n > CHUNK) {
		e->env_cut += n;
		return 0;
	}
	at &= CHUNK - 1;
	bpf_probe_read_kernel(&e->text[at], n, b->text);
	e->env_len = at + n;
	return 0;
}

/* Writes the chosen variables to the beginning of text. */
static __always_inline __u64
write_env(struct exec *e, struct mm_struct *mm)
{
	struct environment v = { .exec = e };

	v.from = BPF_CORE_READ(mm, env_start);
	v.end = BPF_CORE_READ(mm, env_end);
	e->env_cut = e->env_len = e->inside = 0;
	bpf_loop(VARIABLES_MAX, variable, &v, 0);
	if (v.from < v.end)
		e->env_cut += v.end - v.from;
	return e->env_len;
}

struct pieces {
	struct exec *exec;
	struct session *session;
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
	    put(p->session, a, __builtin_offsetof(struct argv, text) + len)) {
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
write_argv(struct exec *e, struct session *s, struct mm_struct *mm, __u64 at)
{
	__u64 from = BPF_CORE_READ(mm, arg_start);
	__u64 len = BPF_CORE_READ(mm, arg_end) - from;
	struct pieces p = {
		.exec = e, .session = s, .from = from, .left = len
	};

	e->argv_len = len;
	e->argv_here = 0;
	if (len > CHUNK) {
		bpf_loop(PARTS_MAX, piece, &p, 0);
		return 0;
	}
	barrier_var(len);
	if (len > CHUNK || at > 4 * CHUNK)
		return 0;
	if (bpf_probe_read_user(&e->text[at], len, (void *)from)) {
		COUNT(cut);
		return 0;
	}
	e->argv_here = len;
	return len;
}

/* Writes paths and the name after the first `at` bytes of text, and returns
 * where they end. */
static __always_inline __u64
write_paths(
    struct exec *e, struct linux_binprm *bprm, struct fs_struct *fs, __u64 at)
{
	struct board *board = bpf_map_lookup_elem(&path_buffer, &zero);
	__u64 len;
	long n;

	e->path_len = e->cwd_len = e->name_len = 0;
	barrier_var(at);
	if (!board || at > CHUNK)
		return 0;
	len =
	    write_path(board, &BPF_CORE_READ(bprm, file)->f_path, &e->text[at]);
	e->path_len = len;
	at += len;
	barrier_var(at);
	if (at > 2 * CHUNK)
		return 0;
	len = write_path(board, &fs->pwd, &e->text[at]);
	e->cwd_len = len;
	at += len;
	barrier_var(at);
	if (at > 3 * CHUNK)
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
	e->script =
	    BPF_CORE_READ(bprm, interp) != BPF_CORE_READ(bprm, filename);
	e->login = login_of(task);
	e->tty[0] = 0;
	bpf_probe_read_kernel_str(e->tty, sizeof(e->tty),
	    BPF_CORE_READ(task, signal, tty)
		? &BPF_CORE_READ(task, signal, tty)->name
		: 0);
}

static __always_inline void
tell_exec(struct task_struct *task, struct linux_binprm *bprm, __u64 session,
    const struct ids *old)
{
	struct exec *e = bpf_map_lookup_elem(&exec_buffer, &zero);
	struct session *s;
	__u64 at;

	if (!e)
		return;
	s = begin(&e->head, EXEC, task, session);
	if (!s)
		return;
	describe(&e->process, task);
	e->process.old = *old;
	identify(e, bprm, task);
	at = write_env(e, BPF_CORE_READ(task, mm));
	at = write_paths(e, bprm, BPF_CORE_READ(task, fs), at);
	at += write_argv(e, s, BPF_CORE_READ(task, mm), at);
	barrier_var(at);
	if (at > sizeof(e->text))
		at = sizeof(e->text);
	commit(s, e, __builtin_offsetof(struct exec, text) + at);
}

#endif
