/*
 * turn rename|exchange|ring FROM TO: renames as mv(1) does not, by the call
 * alone, and by io_uring. turn send ADDRESS PORT: sends a hundred datagrams,
 * each with the address.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One rename through a ring of one entry. */
static int
by_ring(const char *from, const char *to)
{
	struct io_uring_params p = { 0 };
	int fd = syscall(SYS_io_uring_setup, 1, &p);
	int prot = PROT_READ | PROT_WRITE;
	char *ring = mmap(NULL, 4096, prot, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	char *back = mmap(NULL, 4096, prot, MAP_SHARED, fd, IORING_OFF_CQ_RING);
	struct io_uring_sqe *sqe =
	    mmap(NULL, 4096, prot, MAP_SHARED, fd, IORING_OFF_SQES);

	if (fd == -1 || ring == MAP_FAILED || back == MAP_FAILED ||
	    sqe == MAP_FAILED)
		return -1;
	sqe->opcode = IORING_OP_RENAMEAT;
	sqe->fd = AT_FDCWD;
	sqe->addr = (uintptr_t)from;
	sqe->len = AT_FDCWD;
	sqe->addr2 = (uintptr_t)to;
	*(uint32_t *)(ring + p.sq_off.array) = 0;
	*(uint32_t *)(ring + p.sq_off.tail) = 1;
	if (syscall(SYS_io_uring_enter, fd, 1, 0, 0, NULL, 0) != 1)
		return -1;
	/* A wait may come back before what it waits for. */
	while (*(volatile uint32_t *)(back + p.cq_off.tail) == 0)
		syscall(SYS_io_uring_enter, fd, 0, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0);
	return ((struct io_uring_cqe *)(back + p.cq_off.cqes))->res;
}

static int
send_to(const char *address, int port)
{
	struct sockaddr_in four = { .sin_family = AF_INET };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
	int is_six = strchr(address, ':') != NULL;
	int fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
	void *to = is_six ? (void *)&six : &four;
	socklen_t size = is_six ? sizeof(six) : sizeof(four);

	four.sin_port = six.sin6_port = htons(port);
	if (inet_pton(is_six ? AF_INET6 : AF_INET, address,
		is_six ? (void *)&six.sin6_addr : &four.sin_addr) != 1)
		return 1;
	for (int i = 0; i < 100; i++)
		if (sendto(fd, "x", 1, 0, to, size) != 1)
			return 1;
	return 0;
}

int
main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	if (strcmp(argv[1], "ring") == 0)
		return by_ring(argv[2], argv[3]) != 0;
	if (strcmp(argv[1], "send") == 0)
		return send_to(argv[2], atoi(argv[3]));
	return renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3],
		   strcmp(argv[1], "exchange") == 0 ? RENAME_EXCHANGE : 0) != 0;
}
