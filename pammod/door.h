/* SPDX-License-Identifier: Apache-2.0 */
/* The door's messages, docs/protocol/door.md; package wire/door is its twin. */
#ifndef CURFEW_DOOR_H
#define CURFEW_DOOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the door's messages are little endian"
#endif

#define DOOR_QUESTION 0x31305143u /* CQ01 */
#define DOOR_REPLY    0x31305243u /* CR01 */

#define DOOR_ACCOUNT  1u
#define DOOR_OPEN     2u
#define DOOR_CLOSE    3u

#define DOOR_ALLOW    0x414c4c57u /* ALLW */
#define DOOR_STRANGER 0x53545247u /* STRG */

struct door_question {
	uint32_t magic, kind, flags;
	char service[32], user[64], ruser[64], tty[64], rhost[256];
};

struct door_reply {
	uint32_t magic, verdict;
	char message[256];
};

_Static_assert(sizeof(struct door_question) == 492, "question");
_Static_assert(sizeof(struct door_reply) == 264, "reply");

/* Copies text into a field that is all NUL; text that does not fit, or that
 * holds a control character, is refused. */
static inline int
door_text(char *field, size_t size, const char *text)
{
	size_t i, n = strnlen(text, size);

	if (n >= size)
		return 0;
	for (i = 0; i < n; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			return 0;
	memcpy(field, text, n);
	return 1;
}

/* Whether a reply of the right size is of the right form. */
static inline int
door_reply_ok(const struct door_reply *r)
{
	size_t i, n = strnlen(r->message, sizeof(r->message));

	if (r->magic != DOOR_REPLY || n == sizeof(r->message))
		return 0;
	for (i = 0; i < n; i++)
		if ((unsigned char)r->message[i] < ' ' || r->message[i] == 0x7f)
			return 0;
	for (; i < sizeof(r->message); i++)
		if (r->message[i] != '\0')
			return 0;
	return 1;
}

#endif
