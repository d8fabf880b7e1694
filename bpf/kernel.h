/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel fields that our programs read, declared by hand. Offsets are
 * taken from the running kernel's BTF (CO-RE); order and gaps do not matter.
 */
#ifndef CURFEW_KERNEL_H
#define CURFEW_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define EPERM		  1
#define SIGKILL		  9
#define FMODE_WRITE	  0x2
#define S_IFMT		  0170000
#define S_IFSOCK	  0140000
#define S_IFBLK		  0060000
#define TIF_32BIT	  (1UL << 22) /* of arm64 */
#define TS_COMPAT	  0x2	      /* the system call is one of 32 bits */
#define PF_KTHREAD	  0x00200000
#define SIGNAL_GROUP_EXIT 0x4

#pragma clang attribute push(                                                  \
	__attribute__((preserve_access_index)), apply_to = record)

enum pid_type {
	PIDTYPE_PID,
	PIDTYPE_TGID,
};

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

/* One word, or two of half the size before Linux 6.3. */
typedef struct {
	__u64 val;
} kernel_cap_t;

struct user_namespace {
	int level;
};

struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t euid;
	kgid_t egid;
	kernel_cap_t cap_permitted;
	struct user_namespace *user_ns;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
	struct dentry *s_root;
};

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
	unsigned int i_nlink;
	struct super_block *i_sb;
	void *i_private;
};

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct renamedata {
	struct dentry *old_dentry;
};

struct fs_struct {
	struct path root, pwd;
};

struct file {
	unsigned int f_mode;
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct in6_addr {
	__u8 bytes[16];
};

struct sock_common {
	unsigned short skc_family;
	__be16 skc_dport;
	__be32 skc_daddr;
	struct in6_addr skc_v6_daddr;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
};

struct socket {
	short type;
	struct sock *sk;
};

struct msghdr {
	void *msg_name;
};

struct sockaddr_un {
	char sun_path[108];
};

struct unix_address {
	int len;
	struct sockaddr_un name[];
};

struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
};

struct module {
	char name[56];
};

struct bpf_prog_aux {
	char name[16];
};

struct bpf_prog {
	__u32 type;
	struct bpf_prog_aux *aux;
};

struct io_kiocb {
	__u8 opcode;
};

struct linux_binprm {
	struct file *file;
	const char *filename, *interp;
};

struct tty_struct {
	char name[64];
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
	struct tty_struct *tty;
};

struct mm_struct {
	unsigned long arg_start, arg_end, env_start, env_end;
};

struct thread_info {
	unsigned long flags;
	__u32 status; /* x86 */
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	unsigned int flags;
	int tgid;
	int pid;
	int exit_state;
	int exit_code;
	__u64 start_boottime;
	__u64 self_exec_id;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	struct pid *thread_pid;
	const struct cred *cred;
	struct fs_struct *fs;
	struct files_struct *files;
	struct signal_struct *signal;
	kuid_t loginuid;
	char comm[16];
};

struct pt_regs {
	unsigned long bx, cx, dx, si, di, r10, orig_ax; /* x86 */
	__u64 regs[31], orig_x0;			/* arm64 */
	int syscallno;
};

struct bpf_map {
	__u32 id;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

/* Linux 6.7 and later. */
struct bpf_iter_task {
	__u64 opaque[3];
} __attribute__((aligned(8)));

#define BPF_TASK_ITER_ALL_PROCS	  0
#define BPF_TASK_ITER_ALL_THREADS 1

extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task,
    unsigned int flags) __ksym __weak;
extern struct task_struct *
bpf_iter_task_next(struct bpf_iter_task *it) __ksym __weak;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym __weak;
extern void bpf_rcu_read_lock(void) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym __weak;
extern struct task_struct *
bpf_task_acquire(struct task_struct *task) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;

/* Linux 6.18 and later; tested for before it is called. */
struct bpf_task_work {
	__u64 __opaque;
} __attribute__((aligned(8)));

extern int bpf_task_work_schedule_signal_impl(struct task_struct *task,
    struct bpf_task_work *work, void *map,
    int (*callback)(struct bpf_map *map, void *key, void *value),
    void *aux) __ksym __weak;

/* Linux 6.13 and later; tested for before it is called. */
extern int bpf_send_signal_task(struct task_struct *task, int sig,
    enum pid_type type, __u64 value) __ksym __weak;

#endif
