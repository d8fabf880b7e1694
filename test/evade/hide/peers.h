/*
 * Somebody on the same host who listens, or has something open, and ways to him
 * that are no connect(2).
 */
#ifndef CURFEW_PEERS_H
#define CURFEW_PEERS_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#define OUR_PROTOCOL 253 /* for experiments */
#define IP_HEAD	     20

/* Where somebody listens. */
static struct sockaddr_in
ear(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_port = htons(6301) };

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return at;
}

static struct sockaddr_un
box(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX,
		.sun_path = "/run/evade/letters" };

	return at;
}

/* Makes the files that messages name behind their heads. */
static void
hear_messages(int from, int head)
{
	char name[256];
	ssize_t n;

	while ((n = read(from, name, sizeof(name) - 1)) > head) {
		name[n] = 0;
		make(name + head);
	}
}

/* Makes the file that whoever comes names. */
static int
hear(void)
{
	struct sockaddr_in at = ear();
	struct sockaddr_un lies = box();
	int door = socket(AF_INET, SOCK_STREAM, 0);
	int raw = socket(AF_INET, SOCK_RAW, OUR_PROTOCOL);
	int unnoticed = socket(AF_UNIX, SOCK_DGRAM, 0);
	char name[256];

	if (bind(unnoticed, (void *)&lies, sizeof(lies)))
		return 1;
	if (fork() == 0) {
		hear_messages(raw, IP_HEAD);
		return 1;
	}
	if (fork() == 0) {
		hear_messages(unnoticed, 0);
		return 1;
	}
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

/* A packet of a protocol that has no connections. */
static int
by_raw(const char *file)
{
	struct sockaddr_in at = ear();
	int fd = socket(AF_INET, SOCK_RAW, OUR_PROTOCOL);

	return sendto(fd, file, strlen(file), 0, (void *)&at, sizeof(at)) < 0;
}

static int
by_box(const char *file)
{
	struct sockaddr_un at = box();
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	return sendto(fd, file, strlen(file), 0, (void *)&at, sizeof(at)) < 0;
}

/* Makes the file in a folder that another process has open, as its ninth. */
static int
by_descriptor(pid_t pid, const char *file)
{
	int whose = syscall(SYS_pidfd_open, pid, 0);
	int folder = syscall(SYS_pidfd_getfd, whose, 9, 0);

	return openat(folder, strrchr(file, '/') + 1, O_WRONLY | O_CREAT,
		   0600) < 0;
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
