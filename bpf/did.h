/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a deed is begun and sent, wherever it is looked at from. */
#ifndef CURFEW_DID_H
#define CURFEW_DID_H

#include "kernel.h"
#include "record.h"
#include "label.h"
#include "tell.h"
#include "who.h"

static __always_inline void
begin_deed(struct deed *d, __u32 what)
{
	d->what = what;
	d->number = 0;
	d->dev = d->ino = 0;
	d->family = d->port = d->first = d->second = 0;
}

/* Numbers the deed, and sends it with the two texts that it has. */
static __always_inline void
tell_deed(struct task_struct *task, struct label *label, struct deed *d)
{
	struct session *s = begin(&d->head, DEED, task, label->session);
	__u64 len = (__u64)d->first + d->second;

	if (!s)
		return;
	describe(&d->process, task);
	d->process.old = d->process.ids;
	barrier_var(len);
	if (len > sizeof(d->text))
		len = 0;
	commit(s, d, __builtin_offsetof(struct deed, text) + len);
}

#endif
