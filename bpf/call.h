/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* System calls as each machine numbers them, and where it has their arguments.
 */
#ifndef CURFEW_CALL_H
#define CURFEW_CALL_H

#include "kernel.h"
#include "record.h"

#define X32   0x40000000
#define CALLS 512

/* System calls that are told, as x86-64 and i386 number them. */
static const __u8 calls[CALLS] = {
	[2] = DID_OPEN,
	[41] = DID_RAW,
	[42] = DID_CONNECT,
	[85] = DID_OPEN,
	[101] = DID_TRACE,
	[105] = DID_IDS,
	[106] = DID_IDS,
	[113] = DID_IDS,
	[114] = DID_IDS,
	[117] = DID_IDS,
	[119] = DID_IDS,
	[122] = DID_IDS,
	[123] = DID_IDS,
	[126] = DID_IDS,
	[155] = DID_PIVOT,
	[159] = DID_ADJUST,
	[164] = DID_CLOCK,
	[165] = DID_MOUNT,
	[166] = DID_UMOUNT,
	[227] = DID_CLOCK,
	[246] = DID_KEXEC,
	[257] = DID_OPEN,
	[304] = DID_OPEN,
	[305] = DID_ADJUST,
	[311] = DID_POKE,
	[320] = DID_KEXEC,
	[321] = DID_BPF,
	[425] = DID_RING,
	[429] = DID_MOVE,
	[437] = DID_OPEN,
	[438] = DID_TAKE,
	[442] = DID_SPREAD,
};

static const __u8 calls32[CALLS] = {
	[5] = DID_OPEN,
	[8] = DID_OPEN,
	[21] = DID_MOUNT,
	[22] = DID_UMOUNT,
	[23] = DID_IDS,
	[25] = DID_CLOCK,
	[26] = DID_TRACE,
	[46] = DID_IDS,
	[52] = DID_UMOUNT,
	[70] = DID_IDS,
	[71] = DID_IDS,
	[79] = DID_CLOCK,
	[102] = DID_SOCKETCALL,
	[124] = DID_ADJUST,
	[138] = DID_IDS,
	[139] = DID_IDS,
	[164] = DID_IDS,
	[170] = DID_IDS,
	[185] = DID_IDS,
	[203] = DID_IDS,
	[204] = DID_IDS,
	[208] = DID_IDS,
	[210] = DID_IDS,
	[213] = DID_IDS,
	[214] = DID_IDS,
	[215] = DID_IDS,
	[216] = DID_IDS,
	[217] = DID_PIVOT,
	[264] = DID_CLOCK,
	[283] = DID_KEXEC,
	[295] = DID_OPEN,
	[342] = DID_OPEN,
	[343] = DID_ADJUST,
	[348] = DID_POKE,
	[357] = DID_BPF,
	[359] = DID_RAW,
	[362] = DID_CONNECT,
	[404] = DID_CLOCK,
	[405] = DID_ADJUST,
	[425] = DID_RING,
	[429] = DID_MOVE,
	[437] = DID_OPEN,
	[438] = DID_TAKE,
	[442] = DID_SPREAD,
};

/* As arm64 numbers them. Programs of 32 bits number changes of ids as i386
 * does; their deeds are not told. */
static const __u8 calls_arm[CALLS] = {
	[39] = DID_UMOUNT,
	[40] = DID_MOUNT,
	[41] = DID_PIVOT,
	[56] = DID_OPEN,
	[91] = DID_IDS,
	[104] = DID_KEXEC,
	[112] = DID_CLOCK,
	[117] = DID_TRACE,
	[143] = DID_IDS,
	[144] = DID_IDS,
	[145] = DID_IDS,
	[146] = DID_IDS,
	[147] = DID_IDS,
	[149] = DID_IDS,
	[151] = DID_IDS,
	[152] = DID_IDS,
	[170] = DID_CLOCK,
	[171] = DID_ADJUST,
	[198] = DID_RAW,
	[203] = DID_CONNECT,
	[265] = DID_OPEN,
	[266] = DID_ADJUST,
	[271] = DID_POKE,
	[280] = DID_BPF,
	[294] = DID_KEXEC,
	[425] = DID_RING,
	[429] = DID_MOVE,
	[437] = DID_OPEN,
	[438] = DID_TAKE,
	[442] = DID_SPREAD,
};

static __always_inline int
is_compat(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return task->thread_info.status & TS_COMPAT;
}

static __always_inline __u32
told_on_arm(__u64 nr)
{
	struct task_struct *task = bpf_get_current_task_btf();
	int ids = calls32[nr] == DID_IDS ? DID_IDS : 0;

	if (!(calls_arm[nr] | ids))
		return 0;
	return task->thread_info.flags & TIF_32BIT ? ids : calls_arm[nr];
}

/* What a call is, or zero. Most calls are none of these, and cost no more. What
 * this machine's registers do not have is cut out as the program loads. */
static __always_inline __u32
told_call(struct pt_regs *regs)
{
	int arm = bpf_core_field_exists(regs->syscallno);
	__u64 nr = arm ? (__u32)regs->syscallno : regs->orig_ax & ~(__u64)X32;

	barrier_var(nr);
	if (nr >= CALLS)
		return 0;
	if (arm)
		return told_on_arm(nr);
	if (!(calls[nr] | calls32[nr]))
		return 0;
	return is_compat() ? calls32[nr] : calls[nr];
}

/* The first four arguments. */
struct args {
	__u64 a[4];
};

static __always_inline void
read_args(struct pt_regs *regs, struct args *args)
{
	if (bpf_core_field_exists(regs->syscallno)) {
		args->a[0] = regs->orig_x0;
		args->a[1] = regs->regs[1];
		args->a[2] = regs->regs[2];
		args->a[3] = regs->regs[3];
		return;
	}
	if (is_compat()) {
		args->a[0] = regs->bx;
		args->a[1] = regs->cx;
		args->a[2] = regs->dx;
		args->a[3] = regs->si;
		return;
	}
	args->a[0] = regs->di;
	args->a[1] = regs->si;
	args->a[2] = regs->dx;
	args->a[3] = regs->r10;
}

#endif
