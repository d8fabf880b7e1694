/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where labelled tasks send datagrams to that they name an address for, and do
 * not connect: the address is the kernel's copy. Each process is told once for
 * each place that it sends to, so that a flood of datagrams is none of events.
 */
#ifndef CURFEW_SEND_H
#define CURFEW_SEND_H

#include "kernel.h"
#include "record.h"
#include "label.h"
#include "did.h"

#define EEXIST	      17
#define AF_INET	      2
#define AF_INET6      10
#define DESTINATIONS  8192
#define MAPPED_PREFIX 0xffff0000 /* before an address of version 4 */

/* Whoever sends, and where to. */
struct destination {
	__u64 since; /* numbers of processes come back */
	__u32 tgid;
	__u16 family, port;
	__u8 address[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DESTINATIONS);
	__type(key, struct destination);
	__type(value, __u32);
} sent SEC(".maps");

/* What a message is addressed with: the beginning of either version's. */
struct addressed {
	__u16 family;
	__be16 port;
	__u32 four; /* or the label of a flow */
	__u64 six[2];
};

static __always_inline void
tell_sent(struct task_struct *task, struct label *label, struct sock *sk,
    const struct destination *to)
{
	__u64 room[__builtin_offsetof(struct deed, text) / sizeof(__u64)];
	struct deed *d = (void *)room;

	begin_deed(d, DID_SEND);
	d->number = BPF_CORE_READ(sk, sk_protocol);
	d->family = to->family;
	d->port = to->port;
	__builtin_memcpy(d->address, to->address, sizeof(d->address));
	tell_short_deed(task, label, d);
}

static __always_inline int
see_sent(__u64 *ctx, __u16 family)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct sock *sk = (void *)ctx[0];
	struct msghdr *msg = (void *)ctx[1];
	struct label *label = label_of(task);
	struct addressed at = {};
	struct destination to = {};
	__u32 one = 1;
	__s32 known;
	__u64 ret = 0;
	void *name;

	if (!label || bpf_get_func_ret(ctx, &ret) || (__s32)ret < 0)
		return 0;
	name = BPF_CORE_READ(msg, msg_name);
	if (!name || bpf_probe_read_kernel(&at, sizeof(at), name))
		return 0;
	/* What goes by version 4 comes through that one's function as well. */
	if (family == AF_INET6 &&
	    (at.family != AF_INET6 ||
		(!at.six[0] && (__u32)at.six[1] == MAPPED_PREFIX)))
		return 0;
	to.since = BPF_CORE_READ(task, group_leader, start_boottime);
	to.tgid = task->tgid;
	to.family = family;
	to.port = at.port;
	if (family == AF_INET6)
		__builtin_memcpy(to.address, at.six, sizeof(to.address));
	else
		__builtin_memcpy(to.address, &at.four, sizeof(at.four));
	/* An int before Linux 6.4, which had the upper half be anything. */
	known = (__s32)bpf_map_update_elem(&sent, &to, &one, BPF_NOEXIST);
	if (known != -EEXIST)
		tell_sent(task, label, sk, &to);
	return 0;
}

SEC("fexit/udp_sendmsg")
int
did_send(__u64 *ctx)
{
	return see_sent(ctx, AF_INET);
}

SEC("fexit/udpv6_sendmsg")
int
did_send6(__u64 *ctx)
{
	return see_sent(ctx, AF_INET6);
}

#endif
