/*
 * turn rename|exchange|ring FROM TO: renames as mv(1) does not, by the call
 * alone, and by io_uring.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
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
	if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL,
		0) != 1)
		return -1;
	return ((struct io_uring_cqe *)(back + p.cq_off.cqes))->res;
}

int
main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	if (strcmp(argv[1], "ring") == 0)
		return by_ring(argv[2], argv[3]) != 0;
	return renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3],
		   strcmp(argv[1], "exchange") == 0 ? RENAME_EXCHANGE : 0) != 0;
}
