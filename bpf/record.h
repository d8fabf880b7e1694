/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs and the agent share. All of it is little endian, without
 * holes, and generated for Go. Maps stay pinned over a restart of the agent:
 * whoever changes the meaning of what is in them, or puts into the ring what
 * the agent before could not read, raises LAYOUT.
 */
#ifndef CURFEW_RECORD_H
#define CURFEW_RECORD_H

#include "kernel.h"

#define LAYOUT	  5
#define RING	  (8 << 20)
#define CHUNK	  4096 /* bytes of text in one piece */
#define PARTS_MAX 2048 /* pieces of argv: 8 MiB, and the kernel takes 6 */

enum kind {
	EXEC = 1,
	ARGV = 2,
	EXIT = 3,
	SETID = 4,
	REFUSED = 5,
	DEED = 6,
};

struct ids {
	__u32 uid, euid, gid, egid;
	__u64 caps; /* permitted, in the first user namespace */
};

/* What a labelled task carries. A child has its parent's. */
struct label {
	__u64 session;
	__u64 since_boot_ns; /* fork or exec; 0: before it was labelled */
	__u64 told_exec;     /* self_exec_id of the exec that was told last */
	struct ids ids;	     /* of the process, as they were told last */
	__u64 told_exit;
};

/* What the kernel counts for a session. The agent only makes and drops it:
 * a write from outside would lose counts that are made meanwhile. */
struct session {
	__u64 made;  /* events so far; the last one's number */
	__u64 lost;  /* of them, those that are not in the ring */
	__u64 over;  /* of those, what was more than its share of the ring */
	__u64 bytes; /* of the ring that it ever took */
	__u64 late;  /* processes that exited once it was over */
};

/* What the agent says of a session. The kernel only reads it. */
struct end {
	__u64 deadline_boot_ns; /* 0: none */
	__u32 dying;		/* now, whatever the deadline says */
	__u32 over; /* dead; forget it once its last event is read */
};

/* How often programs refused: all, and in the agent's self-test. */
struct refusals {
	__u64 made, proved;
};

/* The session of the agent's self-test, and that of whoever has no label and
 * gained privilege. */
#define PROBE	  (~0ULL)
#define STRANGERS (~0ULL - 1)

/* Sums over all sessions on one processor, since the maps were made. */
struct sums {
	__u64 made, lost;
	__u64 cut;     /* pieces of argv that did not fit */
	__u64 orphans; /* events of labels whose session is not known */
	__u64 strays;  /* children that could not be labelled */
	__u64 killed;  /* kills by the kernel at fork, exec or set*id */
};

struct head {
	__u32 kind;
	__u32 tgid; /* as the first pid namespace numbers it */
	__u64 session;
	__u64 seq;
	__u64 boot_ns;
};

struct process {
	__u32 pid, ppid; /* as the task's own pid namespace numbers them */
	struct ids ids, old;
	__u8 comm[16];
};

/* In text follow the chosen variables, the path of the image that runs, the
 * working directory, the name that was given to exec, and argv if it is no
 * longer than CHUNK. A longer argv went before, in pieces with the same number:
 * so whoever reads this record has all of them that there are. */
struct exec {
	struct head head;
	struct process process;
	__u64 dev; /* as the kernel encodes it: 12 bits major, 20 minor */
	__u64 ino;
	__u32 links;
	__u32 argv_len; /* all of it */
	__u32 env_cut;	/* bytes of the environment that were not looked at */
	__u32 login;	/* the login's uid, or none: ~0 */
	__u16 env_len, path_len, cwd_len, name_len, argv_here;
	__u16 script; /* the name is that of a file that an interpreter runs */
	__u32 inside; /* of a variable that is longer than CHUNK, so far */
	__u8 tty[32];
	__u8 text[5 * CHUNK];
};

struct argv {
	struct head head;
	__u32 offset, len;
	__u8 text[CHUNK];
};

/* What a labelled task may not do to us; see guard.bpf.c. */
enum act {
	SIGNAL = 1,
	TRACE = 2,
	LIMIT = 3,
	BPF = 4,
	MODULE = 5,
	CLOCK = 6,
	WRITE = 7,
	RENAME = 8,
	REMOVE = 9,
	ATTRIBUTES = 10,
	MOUNT = 11,
	HOLD = 12,
	FREEZE = 13,
};

/* An exit, a change of ids, or a refusal. */
struct change {
	struct head head;
	struct process process;
	__u32 code; /* of an exit as wait(2) gives it; of a refusal, the act */
	__u32 pad;
	__u64 lasted_ns;
};

/* What a labelled task did; told once it is done. */
enum did {
	DID_IDS = 1, /* not told as a deed */
	DID_CONNECT,
	DID_OPEN,
	DID_TRACE,
	DID_POKE,
	DID_MOUNT,
	DID_UMOUNT,
	DID_MOVE,
	DID_PIVOT,
	DID_SPREAD,
	DID_MODULE,
	DID_UNLOAD,
	DID_BPF,
	DID_KEXEC,
	DID_CLOCK,
	DID_ADJUST,
	DID_RING,
	DID_SOCKETCALL, /* of 32 bits; told as what it was for */
	DID_RENAME,
	DID_LINK,
	DID_SYMLINK,
	DID_REMOVE,
	DID_SEND,
	DID_TAKE,
	DID_RAW,
};

/* Of a rename or a link: only what it was taken from matters. */
#define FROM_ALONE 0x80000000

/* In text follow two texts: a path, a name; where a mount, or what has another
 * name now, is from. */
struct deed {
	struct head head;
	struct process process;
	__u32 what;
	__u32 number; /* a pid, a command, flags */
	__u64 dev, ino;
	__u16 family, port; /* the port as it is on the wire */
	__u16 first, second;
	__u8 address[16];
	__u8 text[2 * CHUNK];
};

/* How a pid namespace numbers a process. */
struct number {
	__u32 ns, pid;
};

/* A process that has exited, with a label or without: session 0. */
struct gone {
	__u64 session;
	struct process process;
};

/* What the task iterator tells of each living, labelled thread. */
struct task {
	__u64 session;
	__u32 pid; /* of the process, as the reader's namespace numbers it */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct label);
} labels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct session);
} sessions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct end);
} ends SEC(".maps");

/* Up to which number the agent has accounted for a session's events. It is
 * here so that the next agent sees a hole between the two. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u64);
} reached SEC(".maps");

/* How many bytes of a session's the agent has given back to the ring. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u64);
} given SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sums);
} totals SEC(".maps");

/* The LAYOUT that the pinned maps were made with. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} layout SEC(".maps");

#endif
