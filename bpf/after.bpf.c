//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What labelled tasks have the kernel do, seen as functions of its return, for
 * there is no tracepoint: changes of names, and datagrams. A kernel that takes
 * no program at its functions tells neither.
 */
#include "kernel.h"
#include "record.h"
#include "name.h"
#include "send.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
