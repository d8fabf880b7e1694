/* SPDX-License-Identifier: Apache-2.0 */
/* The form of the messages, against the vectors that the Go side wrote. */
#include <stdio.h>
#include <stdlib.h>

#include "door.h"

static int failed;

static void
check(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "test_door: not so: %s\n", what);
		failed = 1;
	}
}

static size_t
load(const char *dir, const char *name, void *to, size_t size)
{
	char path[4096];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "rb");
	if (f == NULL) {
		perror(path);
		exit(1);
	}
	n = fread(to, 1, size, f);
	if (fgetc(f) != EOF)
		n = 0;
	fclose(f);
	return n;
}

static void
golden(const char *dir)
{
	struct door_question q = { .magic = DOOR_QUESTION, .kind = DOOR_OPEN };
	struct door_question want;
	struct door_reply r;

	check(door_text(q.service, sizeof(q.service), "sudo") &&
		  door_text(q.user, sizeof(q.user), "root") &&
		  door_text(q.ruser, sizeof(q.ruser), "ana") &&
		  door_text(q.tty, sizeof(q.tty), "/dev/pts/0") &&
		  door_text(q.rhost, sizeof(q.rhost), "10.0.0.7"),
	    "plain texts are taken");
	check(load(dir, "question.bin", &want, sizeof(want)) == sizeof(want) &&
		  memcmp(&q, &want, sizeof(q)) == 0,
	    "a question is written as Go writes it");
	check(load(dir, "allow.bin", &r, sizeof(r)) == sizeof(r) &&
		  door_reply_ok(&r) && r.verdict == DOOR_ALLOW,
	    "Go's yes is a yes");
	check(load(dir, "deny.bin", &r, sizeof(r)) == sizeof(r) &&
		  door_reply_ok(&r) && r.verdict != DOOR_ALLOW &&
		  r.verdict != DOOR_STRANGER && strstr(r.message, "14:02"),
	    "Go's no is a no, with its line");
}

/* Every reply of the index is judged as the Go side judges it. */
static void
listed(const char *dir)
{
	struct {
		struct door_reply r;
		char more;
	} got;
	char path[4096], name[64], form[16], word[8];
	int ok, seen = 0;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/index.txt", dir);
	if ((f = fopen(path, "r")) == NULL) {
		perror(path);
		exit(1);
	}
	while (fscanf(f, "%63s %15s %7s %*[^\n]", name, form, word) == 3) {
		if (strcmp(form, "reply") != 0)
			continue;
		memset(&got, 0, sizeof(got));
		n = load(dir, name, &got, sizeof(got.r) + 1);
		ok = n == sizeof(got.r) && door_reply_ok(&got.r);
		check(ok == (strcmp(word, "yes") == 0), name);
		seen++;
	}
	check(feof(f) && seen >= 10, "the index was read to its end");
	fclose(f);
}

static void
refused(void)
{
	struct door_reply good = { .magic = DOOR_REPLY, .verdict = DOOR_ALLOW };
	struct door_reply r = good;
	char field[8] = { 0 };

	check(!door_text(field, sizeof(field), "12345678"), "a long text");
	check(!door_text(field, sizeof(field), "a\nb"), "a newline");
	check(!door_text(field, sizeof(field), "\x1b["), "an escape");
	check(door_text(field, sizeof(field), "1234567"), "one that fits");
	r.magic++;
	check(!door_reply_ok(&r), "another magic");
	r = good;
	memset(r.message, 'x', sizeof(r.message));
	check(!door_reply_ok(&r), "a message without an end");
	r = good;
	r.message[100] = 'x';
	check(!door_reply_ok(&r), "bytes behind the message");
	r = good;
	r.message[0] = '\x1b';
	check(!door_reply_ok(&r), "an escape in a message");
}

int
main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	golden(argv[1]);
	listed(argv[1]);
	refused();
	return failed;
}
