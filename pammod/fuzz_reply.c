/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: whatever the bytes, an accepted message is safe to print. */
#include <stdlib.h>

#include "door.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct door_reply r;
	char field[64] = { 0 };
	char text[300];
	size_t i, n = size < sizeof(text) - 1 ? size : sizeof(text) - 1;

	memset(&r, 0, sizeof(r));
	memcpy(&r, data, size < sizeof(r) ? size : sizeof(r));
	if (size > 4 && (data[0] & 1))
		r.magic = DOOR_REPLY;
	if (door_reply_ok(&r))
		for (i = 0; i < strlen(r.message); i++)
			if ((unsigned char)r.message[i] < ' ')
				abort();
	memcpy(text, data, n);
	text[n] = '\0';
	if (door_text(field, sizeof(field), text) && strlen(field) > 63)
		abort();
	return 0;
}
