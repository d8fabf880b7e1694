/*
 * Somebody on the same host who listens on the network, and ways to him that
 * are no connect(2).
 */
#ifndef CURFEW_PEERS_H
#define CURFEW_PEERS_H

#include <netinet/in.h>
#include <sys/socket.h>

/* Where somebody listens. */
static struct sockaddr_in
ear(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_port = htons(6301) };

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return at;
}

/* Makes the file that whoever comes names. */
static int
hear(void)
{
	struct sockaddr_in at = ear();
	int door = socket(AF_INET, SOCK_STREAM, 0);
	char name[256];

	if (bind(door, (void *)&at, sizeof(at)) || listen(door, 8))
		return 1;
	for (;;) {
		int from = accept(door, NULL, NULL);
		ssize_t n = read(from, name, sizeof(name) - 1);

		if (n > 0) {
			name[n] = 0;
			make(name);
		}
		close(from);
	}
}

/* A connection that no connect(2) asks for: it begins with what it sends. */
static int
by_fast_open(const char *file)
{
	struct sockaddr_in at = ear();
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return sendto(fd, file, strlen(file), MSG_FASTOPEN, (void *)&at,
		   sizeof(at)) < 0;
}

static int
by_ring_connect(const char *file)
{
	struct sockaddr_in at = ear();
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_CONNECT,
		.fd = socket(AF_INET, SOCK_STREAM, 0),
		.addr = (uintptr_t)&at,
		.off = sizeof(at),
	};

	return ask_ring(&sqe) || write(sqe.fd, file, strlen(file)) < 0;
}

#endif
