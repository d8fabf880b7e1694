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

/* Numbers the deed, and says whose it is. */
static __always_inline struct session *
number_deed(struct task_struct *task, struct label *label, struct deed *d)
{
	struct session *s = begin(&d->head, DEED, task, label->session);

	if (!s)
		return 0;
	describe(&d->process, task);
	d->process.old = d->process.ids;
	return s;
}

/* Sends a deed with the two texts that it has. */
static __always_inline void
tell_deed(struct task_struct *task, struct label *label, struct deed *d)
{
	struct session *s = number_deed(task, label, d);
	__u64 len = (__u64)d->first + d->second;

	if (!s)
		return;
	barrier_var(len);
	if (len > sizeof(d->text))
		len = 0;
	commit(s, d, __builtin_offsetof(struct deed, text) + len);
}

/* Sends one that has no text, nor room for any. */
static __always_inline void
tell_short_deed(struct task_struct *task, struct label *label, struct deed *d)
{
	struct session *s = number_deed(task, label, d);

	if (s)
		commit(s, d, __builtin_offsetof(struct deed, text));
}

#endif
