/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What labelled tasks do to the machine and to others, told when the call
 * returns and has done it. Numbers are those of the registers, files and
 * sockets the kernel's own, found by the descriptor: a thread that puts another
 * file at that number meanwhile has that one told. The paths of mounts are read
 * from the memory of who called, where the kernel keeps no copy: another thread
 * may have changed them since, and whoever reads is told so.
 */
#ifndef CURFEW_DEED_H
#define CURFEW_DEED_H

#include "kernel.h"
#include "record.h"
#include "label.h"
#include "path.h"
#include "tell.h"
#include "ward.h"
#include "call.h"
#include "did.h"
#include "exec.h"

#define EINPROGRESS    115
#define AF_UNIX	       1
#define AF_INET	       2
#define AF_INET6       10
#define AF_PACKET      17
#define SOCK_RAW       3
#define IPPROTO_TCP    6
#define IPPROTO_MPTCP  262
#define TCP_SYN_SENT   2
#define PTRACE_TRACEME 0
#define PTRACE_ATTACH  16
#define PTRACE_SEIZE   0x4206
/* What loads or attaches a program, and what takes hold of an object. */
#define BPF_TOLD                                                               \
	((1U << 5) | (1U << 8) | (1U << 17) | (1U << 28) | (1U << 7) |         \
	    (1U << 13) | (1U << 14) | (1U << 30))
#define SOCKET_MAKE    1 /* of socketcall(2) */
#define SOCKET_CONNECT 3
#define ANY_OPERATION  0xffff
#define OPERATION_MAX  64
#define PROG_NAME      16
#define MODULE_NAME    56
#define SUN_PATH       108
#define UN_HEAD	       2 /* the family, which its length counts */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct deed);
} deed_buffer SEC(".maps");

static __always_inline struct file *
file_of(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **all = BPF_CORE_READ(table, fd), *file = 0;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), all + fd);
	return file;
}

static __always_inline struct deed *
deed_of(__u32 what)
{
	struct deed *d = bpf_map_lookup_elem(&deed_buffer, &zero);

	if (d)
		begin_deed(d, what);
	return d;
}

/* Adds a text of who called. */
static __always_inline void
quote(struct deed *d, __u64 from, int second)
{
	__u64 at = second ? d->first : 0;
	long n;

	barrier_var(at);
	if (at > CHUNK)
		return;
	n = bpf_probe_read_user_str(&d->text[at], CHUNK, (void *)from);
	if (n <= 1 || n > CHUNK)
		return;
	if (second)
		d->second = n - 1;
	else
		d->first = n - 1;
}

/* Adds a text of the kernel. */
static __always_inline void
name_it(struct deed *d, const void *from, __u32 size)
{
	long n = bpf_probe_read_kernel_str(d->text, size, from);

	if (n > 1 && n <= size)
		d->first = n - 1;
}

/* Whether who opened a file for writing is told. */
static __always_inline int
matters(struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	__u32 mode = BPF_CORE_READ(file, f_inode, i_mode);
	char name[4] = {};

	if (!(BPF_CORE_READ(file, f_mode) & FMODE_WRITE))
		return 0;
	if ((mode & S_IFMT) == S_IFBLK || witnessed(dentry) || is_lever(dentry))
		return 1;
	if (BPF_CORE_READ(dentry, d_inode, i_sb, s_magic) != PROC_MAGIC)
		return 0;
	/* Another one's memory. */
	bpf_probe_read_kernel_str(
	    name, sizeof(name), BPF_CORE_READ(dentry, d_name.name));
	return name[0] == 'm' && name[1] == 'e' && name[2] == 'm';
}

/* Whose descriptor was taken, as its own pid namespace numbers it. */
static __always_inline __u32
taken_from(struct task_struct *task, __u32 pidfd)
{
	struct file *file = file_of(task, pidfd);
	struct pid *pid = BPF_CORE_READ(file, f_inode, i_private);

	if (!pid) /* before Linux 6.9 */
		pid = BPF_CORE_READ(file, private_data);
	return number_at(pid, BPF_CORE_READ(pid, level)).nr;
}

/* A file that was opened, or that another process had open. */
static __always_inline int
describe_file(struct task_struct *task, struct deed *d, __u32 from, __s64 fd)
{
	struct board *board = bpf_map_lookup_elem(&path_buffer, &zero);
	struct file *file = fd < 0 ? 0 : file_of(task, fd);

	if (!board || !file || (d->what == DID_OPEN && !matters(file)))
		return 0;
	if (d->what == DID_TAKE)
		d->number = taken_from(task, from);
	d->dev = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
	d->ino = BPF_CORE_READ(file, f_inode, i_ino);
	d->first = write_path(board, &file->f_path, d->text);
	return 1;
}

static __always_inline void
describe_peer(struct deed *d, struct sock *sk)
{
	struct sock_common *common = &sk->__sk_common;

	d->family = BPF_CORE_READ(common, skc_family);
	d->port = BPF_CORE_READ(common, skc_dport);
	if (d->family == AF_INET6)
		bpf_probe_read_kernel(
		    d->address, sizeof(d->address), &common->skc_v6_daddr);
	else
		bpf_probe_read_kernel(
		    d->address, sizeof(__be32), &common->skc_daddr);
}

/* Ends where its length says. */
static __always_inline void
name_abstract(struct deed *d, struct unix_address *address)
{
	__u64 size = BPF_CORE_READ(address, len) - UN_HEAD;

	if (size > SUN_PATH)
		return;
	barrier_var(size);
	size &= 127; /* for the verifier */
	name_it(d, &address->name[0].sun_path[1], size);
}

/* A connection that is no TCP: that is told where the socket's state changes,
 * however it was asked for. */
static __always_inline int
describe_connect(struct task_struct *task, struct deed *d, __u32 fd, __s64 ret)
{
	struct file *file = ret && ret != -EINPROGRESS ? 0 : file_of(task, fd);
	struct unix_address *address;
	struct socket *socket;
	struct sock *sk;
	__u32 protocol;

	if (!file ||
	    (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	d->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (d->family == AF_UNIX) {
		sk = BPF_CORE_READ((struct unix_sock *)sk, peer);
		address = BPF_CORE_READ((struct unix_sock *)sk, addr);
		/* Without a name it is a pair's. */
		if (!address)
			return 0;
		name_it(d, &address->name[0].sun_path, SUN_PATH);
		d->number = d->first != 0;
		if (!d->first) /* one that begins with NUL is no file's */
			name_abstract(d, address);
		return 1;
	}
	protocol = BPF_CORE_READ(sk, sk_protocol);
	if ((d->family != AF_INET && d->family != AF_INET6) ||
	    protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
		return 0;
	d->number = protocol;
	describe_peer(d, sk);
	return 1;
}

/* A socket for packets as they are on the wire: where they go is in them. */
static __always_inline int
describe_raw(struct task_struct *task, struct deed *d, __s64 fd)
{
	struct file *file = fd < 0 ? 0 : file_of(task, fd);
	struct socket *socket;

	if (!file ||
	    (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	d->family = BPF_CORE_READ(socket, sk, __sk_common.skc_family);
	d->number = BPF_CORE_READ(socket, sk, sk_protocol);
	if (d->family == AF_PACKET)
		return 1;
	return (d->family == AF_INET || d->family == AF_INET6) &&
	       BPF_CORE_READ(socket, type) == SOCK_RAW;
}

static __always_inline int
describe_bpf(struct task_struct *task, struct deed *d, __u32 cmd, __s64 ret)
{
	struct bpf_prog_aux *aux;
	struct bpf_prog *prog;
	struct file *file;

	if (ret < 0 || cmd > 31 || !(BPF_TOLD & (1U << cmd)))
		return 0;
	d->number = cmd;
	if (cmd != BPF_PROG_LOAD)
		return 1;
	file = file_of(task, ret);
	prog = BPF_CORE_READ(file, private_data);
	aux = BPF_CORE_READ(prog, aux);
	name_it(d, &aux->name, PROG_NAME);
	return 1;
}

static __always_inline int
describe_adjust(struct deed *d, __u64 from)
{
	bpf_probe_read_user(&d->number, sizeof(d->number), (void *)from);
	return d->number != 0; /* else it only asked */
}

/* Fills in what a mount was asked with. */
static __always_inline void
describe_mount(struct deed *d, const struct args *args)
{
	switch (d->what) {
	case DID_MOUNT:
		d->number = args->a[3];
		quote(d, args->a[1], 0);
		quote(d, args->a[0], 1);
		return;
	case DID_MOVE:
		quote(d, args->a[3], 0);
		quote(d, args->a[1], 1);
		return;
	case DID_PIVOT:
		quote(d, args->a[0], 0);
		quote(d, args->a[1], 1);
		return;
	case DID_UMOUNT:
		quote(d, args->a[0], 0);
		return;
	case DID_SPREAD:
		quote(d, args->a[1], 0);
	}
}

/* Fills in the rest, and says whether there is something to tell. */
static __always_inline int
describe_call(struct task_struct *task, struct deed *d, const struct args *args,
    __s64 ret)
{
	switch (d->what) {
	case DID_OPEN:
	case DID_TAKE:
		return describe_file(task, d, args->a[0], ret);
	case DID_RAW:
		return describe_raw(task, d, ret);
	case DID_CONNECT:
		return describe_connect(task, d, args->a[0], ret);
	case DID_TRACE:
		d->number = args->a[1];
		return !ret && (args->a[0] == PTRACE_TRACEME ||
				   args->a[0] == PTRACE_ATTACH ||
				   args->a[0] == PTRACE_SEIZE);
	case DID_POKE:
		d->number = args->a[0];
		return ret > 0;
	case DID_BPF:
		return describe_bpf(task, d, args->a[0], ret);
	case DID_ADJUST:
		return ret >= 0 &&
		       describe_adjust(
			   d, args->a[1] > CALLS ? args->a[1] : args->a[0]);
	case DID_RING:
		d->number = ANY_OPERATION;
		return ret >= 0;
	case DID_KEXEC:
	case DID_CLOCK:
		return !ret;
	}
	if (ret)
		return 0;
	describe_mount(d, args);
	return 1;
}

static __always_inline void
tell_call(struct task_struct *task, struct label *label, struct pt_regs *regs,
    __u32 what, __s64 ret)
{
	struct args args;
	__u32 pair[2] = {};
	struct deed *d;

	read_args(regs, &args);
	if (what == DID_SOCKETCALL) {
		if (args.a[0] == SOCKET_MAKE)
			what = DID_RAW;
		else if (args.a[0] == SOCKET_CONNECT)
			what = DID_CONNECT;
		else
			return;
		bpf_probe_read_user(pair, sizeof(pair), (void *)args.a[1]);
		args.a[0] = pair[0];
	}
	d = deed_of(what);
	if (d && describe_call(task, d, &args, ret))
		tell_deed(task, label, d);
}

/* Where a connection begins, asked for by whatever call. */
SEC("tp_btf/inet_sock_set_state")
int
on_state(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label *label;
	struct deed *d;

	if (ctx[2] != TCP_SYN_SENT)
		return 0;
	label = label_of(task);
	if (!label)
		return 0;
	d = deed_of(DID_CONNECT);
	if (!d)
		return 0;
	d->number = IPPROTO_TCP;
	describe_peer(d, (void *)ctx[0]);
	tell_deed(task, label, d);
	return 0;
}

static __always_inline int
tell_module(struct module *module, __u32 what)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label *label = label_of(task);
	struct deed *d;

	if (!label)
		return 0;
	d = deed_of(what);
	if (!d)
		return 0;
	name_it(d, &module->name, MODULE_NAME);
	tell_deed(task, label, d);
	return 0;
}

SEC("tp_btf/module_load")
int
on_module(__u64 *ctx)
{
	return tell_module((void *)ctx[0], DID_MODULE);
}

SEC("tp_btf/module_free")
int
on_module_gone(__u64 *ctx)
{
	return tell_module((void *)ctx[0], DID_UNLOAD);
}

/* What io_uring does is no system call: what was asked of it is told, and not
 * with whom. A file that it opened is not seen. */
SEC("tp_btf/io_uring_submit_req")
int
on_ring(__u64 *ctx)
{
	static const __u8 told[OPERATION_MAX] = {
		[16] = 1, /* connect */
		[18] = 1, /* openat */
		[28] = 1, /* openat2 */
		[45] = 1, /* socket */
	};
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 operation = BPF_CORE_READ((struct io_kiocb *)ctx[0], opcode);
	struct label *label;
	struct deed *d;

	barrier_var(operation);
	if (operation >= OPERATION_MAX || !told[operation])
		return 0;
	label = label_of(task);
	if (!label)
		return 0;
	d = deed_of(DID_RING);
	if (!d)
		return 0;
	d->number = operation;
	tell_deed(task, label, d);
	return 0;
}

#endif
