//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The lock that needs nobody: a timer on the boot-time clock that ends every
 * labelled task whose session is over, those that sleep and those that spin
 * too. Its map is pinned, so that it goes off with the agent killed, stopped
 * or being replaced. It only ever kills what carries a label of a session
 * whose end the agent wrote down.
 *
 * Needs Linux 6.13 (bpf_send_signal_task), which sends from where a process
 * was interrupted, and not from where the processor idled: there the kernel
 * says EPERM, and most of the time a processor idles. So we go where a process
 * is: from 6.18 on by task work, which wakes one; before, with whichever
 * returns next from a system call.
 */
#include "kernel.h"
#include "record.h"
#include "label.h"

#define CLOCK_BOOTTIME 7
#define MSEC	       1000000ULL
#define AGAIN	       (2 * MSEC)  /* until none is left */
#define STUCK	       (50 * MSEC) /* what a kill did not end at once */
#define PATIENT	       100	   /* rounds before that */
#define LONGEST	       (60 * 1000 * MSEC)
#define HELPERS	       64

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct alarm {
	struct bpf_timer timer;
	__u64 asked;  /* how often it was set from outside */
	__u64 seen;   /* of them, those that a round has begun after */
	__u64 clean;  /* sessions that ended up to here have nobody left */
	__u64 next;   /* the earliest end after that */
	__u64 left;   /* in this round of the timer */
	__u64 aided;  /* seen by helpers, who do not count for the timer */
	__u64 rounds; /* in a row that left somebody */
	__u64 failed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct alarm);
} alarms SEC(".maps");

/* One helper may be stopped or stuck: the next round asks another. */
struct helper {
	struct bpf_task_work work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HELPERS);
	__type(key, __u32);
	__type(value, struct helper);
} helpers SEC(".maps");

/* Whether the kernel has task work, as the agent found. Else on_return is
 * attached. */
const volatile __u32 wakes = 1;

/* Whether somebody has to be ended that the timer could not. In the memory of
 * the program, since every system call of the machine asks. */
volatile __u64 wanted;

/* Finds the earliest end that is not seen to. */
static long
earliest(void *map, const __u64 *session, struct end *end, struct alarm **to)
{
	struct alarm *a = *to;
	__u64 at = end->deadline_boot_ns;

	(void)map;
	(void)session;
	if (end->over)
		return 0;
	if (end->dying)
		at = 1; /* looked for whenever the agent asks */
	if (at > a->clean && at < a->next)
		a->next = at;
	return 0;
}

static __always_inline void
end_task(struct task_struct *at, struct alarm *a, __u64 *seen)
{
	struct task_struct *task;
	struct label *label;

	if (at->exit_state)
		return;
	task = bpf_task_acquire(at);
	if (!task)
		return;
	label = label_of(task);
	if (label && ended(label->session)) {
		__sync_fetch_and_add(seen, 1);
		if (bpf_send_signal_task(task, SIGKILL, PIDTYPE_TGID, 0))
			__sync_fetch_and_add(&a->failed, 1);
	}
	bpf_task_release(task);
}

/* Counts are kept in the map: the verifier would follow one in a register
 * through every round of the loop. The timer's own is written by nobody else:
 * who set it to nothing in between would have it believe that all are gone. */
static __always_inline void
end_all(struct alarm *a, __u64 *seen)
{
	struct bpf_iter_task it;
	struct task_struct *task;

	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, 0, BPF_TASK_ITER_ALL_THREADS);
	while ((task = bpf_iter_task_next(&it)))
		end_task(task, a, seen);
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
}

/* Runs in the process that was asked for help. */
static int
help(struct bpf_map *map, void *key, void *value)
{
	struct alarm *a = bpf_map_lookup_elem(&alarms, &zero);

	(void)map;
	(void)key;
	(void)value;
	if (a)
		end_all(a, &a->aided);
	return 0;
}

/* Asks one process for help: in turn one that has to end itself, and the
 * first of all, which is there and sleeps. It runs our function and then goes
 * on, as after a signal that it ignores. */
static __always_inline int
ask(struct task_struct *at, struct helper *helper, int own)
{
	struct task_struct *task;
	struct label *label;
	int asked = 0;

	if (at->exit_state || at->flags & PF_KTHREAD || at->__state > 1)
		return 0;
	task = bpf_task_acquire(at);
	if (!task)
		return 0;
	label = label_of(task);
	if (!own || (label && ended(label->session)))
		asked = !bpf_task_work_schedule_signal_impl(
		    task, &helper->work, &helpers, help, 0);
	bpf_task_release(task);
	return asked;
}

static __always_inline void
ask_somebody(struct alarm *a)
{
	__u32 turn = a->rounds % HELPERS;
	struct helper *helper = bpf_map_lookup_elem(&helpers, &turn);
	struct bpf_iter_task it;
	struct task_struct *task;

	wanted = 1;
	if (!helper || !wakes || !bpf_task_work_schedule_signal_impl)
		return;
	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, 0, BPF_TASK_ITER_ALL_PROCS);
	while ((task = bpf_iter_task_next(&it)))
		if (ask(task, helper, !(turn & 1)))
			break;
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
}

/* How long until it has to go off again; 0: never. */
static __always_inline __u64
round_of(struct alarm *a)
{
	__u64 now = bpf_ktime_get_boot_ns();
	__u64 failed = a->failed;
	struct alarm *to = a;

	a->next = ~0ULL;
	bpf_for_each_map_elem(&ends, earliest, &to, 0);
	if (a->next <= now) {
		a->left = 0;
		end_all(a, &a->left);
		if (a->failed != failed)
			ask_somebody(a);
		if (a->left)
			return ++a->rounds < PATIENT ? AGAIN : STUCK;
		a->clean = now;
		a->next = ~0ULL;
		bpf_for_each_map_elem(&ends, earliest, &to, 0);
	}
	a->rounds = 0;
	wanted = 0;
	if (a->next == ~0ULL)
		return 0;
	now = bpf_ktime_get_boot_ns();
	if (a->next <= now)
		return 1;
	return a->next - now < LONGEST ? a->next - now : LONGEST;
}

static int
on_alarm(void *map, __u32 *key, struct alarm *a)
{
	__u64 asked = *(volatile __u64 *)&a->asked, pause;

	(void)map;
	(void)key;
	if (a->seen != asked)
		a->clean = 0; /* an end may have been set in the past */
	a->seen = asked;
	pause = round_of(a);
	if (pause)
		bpf_timer_start(&a->timer, pause, 0);
	/* Whoever asked meanwhile may know of an end that we did not see, and
	 * what he set we have set anew. */
	if (asked != *(volatile __u64 *)&a->asked)
		bpf_timer_start(&a->timer, 0, 0);
	return 0;
}

/* The agent runs this when it has written down an end. The first time makes
 * the timer; an agent of another version puts its own program in. */
SEC("syscall")
int
arm(void *ctx)
{
	struct alarm *a = bpf_map_lookup_elem(&alarms, &zero);
	long err;

	(void)ctx;
	if (!a)
		return -1;
	bpf_timer_init(&a->timer, &alarms, CLOCK_BOOTTIME);
	err = bpf_timer_set_callback(&a->timer, on_alarm);
	if (err)
		return err;
	__sync_fetch_and_add(&a->asked, 1);
	return bpf_timer_start(&a->timer, 0, 0);
}

/* Whoever comes back from a system call ends those whom the timer could not
 * end. */
SEC("tp_btf/sys_exit")
int
on_return(__u64 *ctx)
{
	struct alarm *a;

	(void)ctx;
	if (!wanted || !__sync_val_compare_and_swap(&wanted, 1, 0))
		return 0;
	a = bpf_map_lookup_elem(&alarms, &zero);
	if (a)
		end_all(a, &a->aided);
	return 0;
}
