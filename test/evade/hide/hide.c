/*
 * Runs a program, or makes a file, in a way that is meant to be missed or
 * taken for another. What was run says so by the file that it makes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOUCH "/usr/bin/touch"
#define TRUE  "/usr/bin/true"

static char order[256]; /* what a victim is told to run */

static int
make(const char *file)
{
	int fd = open(file, O_WRONLY | O_CREAT, 0600);

	return fd == -1 ? 1 : close(fd);
}

static int
touch(const char *name, const char *file)
{
	char *const args[] = { (char *)name, (char *)file, NULL };

	execv(TOUCH, args);
	return 1;
}

static int
wait_for(pid_t pid)
{
	int status = 1;

	return pid == -1 || waitpid(pid, &status, __WALL) != pid || status;
}

static int
fill(int to)
{
	int from = open(TOUCH, O_RDONLY);
	struct stat st;

	if (from == -1 || fstat(from, &st) == -1)
		return -1;
	while (sendfile(to, from, NULL, st.st_size) > 0)
		;
	return close(from);
}

static int
exec_fd(int fd, const char *file)
{
	char *const args[] = { "ls", (char *)file, NULL };

	syscall(SYS_execveat, fd, "", args, environ, AT_EMPTY_PATH);
	return 1;
}

static int
by_fd(const char *file)
{
	return exec_fd(open(TOUCH, O_PATH | O_CLOEXEC), file);
}

static int
by_memfd(const char *file)
{
	int fd = memfd_create("ls", MFD_CLOEXEC);

	return fill(fd) ? 1 : exec_fd(fd, file);
}

/* Files that cannot be written any more: of those that can, the kernel runs
 * none. */
static int
reopened(int fd, const char *file)
{
	char name[64];
	int again;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	again = open(name, O_RDONLY | O_CLOEXEC);
	close(fd);
	return exec_fd(again, file);
}

static int
by_nameless(const char *file)
{
	int fd = open("/run/evade", O_TMPFILE | O_RDWR, 0700);

	return fill(fd) ? 1 : reopened(fd, file);
}

static int
by_deleted(const char *file)
{
	int fd = open("/run/evade/deleted", O_RDWR | O_CREAT, 0700);

	return fill(fd) || unlink("/run/evade/deleted") ? 1
							: reopened(fd, file);
}

static void *
run_thread(void *file)
{
	touch("touch", file);
	return NULL;
}

static int
by_thread(const char *file)
{
	pthread_t thread;

	pthread_create(&thread, NULL, run_thread, (void *)file);
	pthread_join(thread, NULL);
	return 1;
}

static int
by_vfork(const char *file)
{
	pid_t pid = vfork();

	if (pid == 0) {
		touch("touch", file);
		_exit(1);
	}
	return wait_for(pid);
}

static int
run_clone(void *file)
{
	return touch("touch", file);
}

/* A child that shares memory, files and folder with its parent. */
static int
by_sharing(const char *file)
{
	char *stack = malloc(1 << 16);

	return wait_for(clone(run_clone, stack + (1 << 16),
	    CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_SIGHAND, (void *)file));
}

/* A child of its parent's parent, with a number of its own choice, that no
 * tracer is told of. */
static int
by_clone(const char *file)
{
	pid_t wanted = 31007;
	struct clone_args args = {
		.flags = CLONE_PARENT | CLONE_UNTRACED,
		.set_tid = (uintptr_t)&wanted,
		.set_tid_size = 1,
	};

	if (syscall(SYS_clone3, &args, sizeof(args)) == 0)
		return touch("touch", file);
	return 0;
}

/* A 64-bit process that calls the kernel as one of 32 bits does. */
static int
by_int80(const char *file)
{
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	uint32_t *args = (uint32_t *)(low + 1024);
	long ret;

	if (low == MAP_FAILED)
		return 1;
	strcpy(low, TOUCH);
	snprintf(low + 128, 256, "%s", file);
	args[0] = (uint32_t)(uintptr_t)low;
	args[1] = (uint32_t)(uintptr_t)(low + 128);
	asm volatile("int $0x80"
		     : "=a"(ret)
		     : "a"(11), "b"(low), "c"(args), "d"(args + 2)
		     : "memory");
	return ret != 0;
}

/* Takes another one's name, in the process table and in its arguments, for
 * the rest of its life. */
static int
by_name(const char *file, char **argv)
{
	char keep[256];

	snprintf(keep, sizeof(keep), "%s", file);
	prctl(PR_SET_NAME, "kworker/0:1");
	memset(argv[0], 0, strlen(argv[2]) + (argv[2] - argv[0]));
	strcpy(argv[0], "[kworker]");
	return make(keep);
}

#include "races.h"

/* Has another process execute a program in its own place. */
static int
inject(pid_t pid, const char *file)
{
	struct {
		char program[sizeof(TOUCH)], file[64];
		uint64_t argv[3];
	} there = { .program = TOUCH };
	struct user_regs_struct regs;
	uint64_t at;

	if (ptrace(PTRACE_ATTACH, pid, 0, 0) || waitpid(pid, NULL, 0) != pid ||
	    ptrace(PTRACE_GETREGS, pid, 0, &regs))
		return 1;
	at = (regs.rsp - 1024) & ~15ULL;
	snprintf(there.file, sizeof(there.file), "%s", file);
	there.argv[0] = at;
	there.argv[1] = at + sizeof(there.program);
	for (size_t i = 0; i < sizeof(there); i += 8)
		if (ptrace(PTRACE_POKEDATA, pid, at + i,
			*(uint64_t *)((char *)&there + i)))
			return 1;
	regs.rip -= 2; /* to the call that it sleeps in */
	regs.rax = SYS_execve;
	regs.orig_rax = -1;
	regs.rdi = at;
	regs.rsi = at + ((char *)there.argv - (char *)&there);
	regs.rdx = 0;
	if (ptrace(PTRACE_SETREGS, pid, 0, &regs))
		return 1;
	return ptrace(PTRACE_DETACH, pid, 0, 0) != 0;
}

/* Waits for orders, which others write into its memory. */
static int
obey(const char *place)
{
	FILE *f = fopen(place, "w");

	if (!f)
		return 1;
	fprintf(f, "%d %llu\n", getpid(), (unsigned long long)(uintptr_t)order);
	fclose(f);
	for (;; usleep(20000)) {
		if (!order[0])
			continue;
		usleep(20000); /* it may not be whole yet */
		(void)!system(order);
		order[0] = 0;
	}
}

static int
give(pid_t pid, uintptr_t at, const char *what, int by_file)
{
	struct iovec from = { (char *)what, strlen(what) + 1 };
	struct iovec to = { (void *)at, strlen(what) + 1 };
	char name[64];
	int fd;

	if (!by_file)
		return process_vm_writev(pid, &from, 1, &to, 1, 0) < 0;
	snprintf(name, sizeof(name), "/proc/%d/mem", pid);
	fd = open(name, O_WRONLY);
	return fd == -1 || pwrite(fd, what, from.iov_len, at) < 0;
}

/* Asks io_uring for one thing, without a system call that says what. */
static int
ask_ring(const struct io_uring_sqe *what)
{
	struct io_uring_params p = { 0 };
	int fd = syscall(SYS_io_uring_setup, 2, &p);
	char *ring;
	struct io_uring_sqe *sqe;

	if (fd == -1)
		return 1;
	ring = mmap(NULL, p.sq_off.array + p.sq_entries * 4,
	    PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	sqe = mmap(NULL, p.sq_entries * sizeof(*sqe), PROT_READ | PROT_WRITE,
	    MAP_SHARED, fd, IORING_OFF_SQES);
	if (ring == MAP_FAILED || sqe == MAP_FAILED)
		return 1;
	*sqe = *what;
	*(uint32_t *)(ring + p.sq_off.array) = 0;
	atomic_store((_Atomic uint32_t *)(ring + p.sq_off.tail), 1);
	return syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS,
		   NULL, 0) != 1;
}

static int
by_ring(const char *file)
{
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_OPENAT,
		.fd = AT_FDCWD,
		.addr = (uintptr_t)file,
		.len = 0600,
		.open_flags = O_WRONLY | O_CREAT,
	};

	return ask_ring(&sqe);
}

#include "peers.h"

/* A script that lies in no folder, and whose interpreter it is. */
static int
by_script(const char *file)
{
	int fd = memfd_create("ls", 0);

	if (dprintf(fd, "#!" TOUCH " %s\n", file) < 0)
		return 1;
	return exec_fd(fd, file);
}

/* A child that she traces, and whose arguments she writes when it has asked
 * for the exec already. */
static int
by_traced(const char *file)
{
	static char name[256] = "/run/evade/nothing";
	struct user_regs_struct regs;
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(touch("touch", name));
	}
	if (waitpid(pid, &status, 0) != pid)
		return 1;
	do { /* to the beginning of the call */
		if (ptrace(PTRACE_SYSCALL, pid, 0, 0) ||
		    waitpid(pid, &status, 0) != pid || WIFEXITED(status) ||
		    ptrace(PTRACE_GETREGS, pid, 0, &regs))
			return 1;
	} while (regs.orig_rax != SYS_execve);
	if (give(pid, (uintptr_t)name, file, 0) ||
	    ptrace(PTRACE_DETACH, pid, 0, 0))
		return 1;
	return wait_for(pid);
}

/* Runs code that lies in no file and that no exec brought: open(2) of what it
 * is given. */
static int
by_jump(const char *file)
{
	static const char code[] = "\xb8\x02\x00\x00\x00\x0f\x05\xc3";
	char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return 1;
	memcpy(at, code, sizeof(code));
	return ((int (*)(const char *, int, int))at)(
		   file, O_WRONLY | O_CREAT, 0600) < 0;
}

/* A program with no arguments at all, not even its own name. */
static int
by_nothing(const char *file)
{
	char *const none[] = { NULL };

	setenv("FILE", file, 1);
	execv("/proc/self/exe", none);
	return 1;
}

static int
by_self(const char *file)
{
	char *const args[] = { "sshd: root", "make", (char *)file, NULL };

	execv("/proc/self/exe", args);
	return 1;
}

/* Arguments of more than the record has room for in one entry. */
static int
by_length(const char *file)
{
	enum { WORDS = 14, SIZE = 100000 };
	char *args[WORDS + 4] = { "touch", "-c" };

	for (int i = 0; i < WORDS; i++) {
		args[2 + i] = malloc(SIZE);
		memset(args[2 + i], 'x', SIZE - 1);
		args[2 + i][SIZE - 1] = 0;
	}
	make(file);
	args[2 + WORDS] = (char *)file;
	execv(TOUCH, args);
	return 1;
}

int
main(int argc, char **argv)
{
	const char *way, *name = strrchr(argv[0], '/');

	if (argc == 1 && !argv[0][0])
		return make(getenv("FILE"));
	if (strcmp(name ? name + 1 : argv[0], "true") == 0)
		return make(argv[1]); /* one program, many names */
	if (argc < 3)
		return 2;
	way = argv[1];
#define WAY(name, call)                                                        \
	if (strcmp(way, name) == 0)                                            \
	return (call)
	WAY("make", make(argv[2]));
	WAY("fd", by_fd(argv[2]));
	WAY("memfd", by_memfd(argv[2]));
	WAY("nameless", by_nameless(argv[2]));
	WAY("deleted", by_deleted(argv[2]));
	WAY("thread", by_thread(argv[2]));
	WAY("vfork", by_vfork(argv[2]));
	WAY("sharing", by_sharing(argv[2]));
	WAY("clone", by_clone(argv[2]));
	WAY("int80", by_int80(argv[2]));
	WAY("name", by_name(argv[2], argv));
	WAY("ring", by_ring(argv[2]));
	WAY("fastopen", by_fast_open(argv[2]));
	WAY("raw", by_raw(argv[2]));
	WAY("box", by_box(argv[2]));
	WAY("ringconnect", by_ring_connect(argv[2]));
	WAY("script", by_script(argv[2]));
	WAY("traced", by_traced(argv[2]));
	WAY("hear", hear());
	WAY("jump", by_jump(argv[2]));
	WAY("nothing", by_nothing(argv[2]));
	WAY("self", by_self(argv[2]));
	WAY("length", by_length(argv[2]));
	WAY("obey", obey(argv[2]));
	if (strcmp(way, "pause") == 0)
		for (;;)
			pause();
	if (argc < 4)
		return 2;
	WAY("race", race(atoi(argv[2]), argv[3]));
	WAY("turn", turn(atoi(argv[2]), argv[3]));
	WAY("take", by_descriptor(atoi(argv[2]), argv[3]));
	WAY("inject", inject(atoi(argv[2]), argv[3]));
	if (argc < 5)
		return 2;
	WAY("poke", give(atoi(argv[2]), strtoull(argv[3], 0, 10), argv[4], 0));
	WAY("mem", give(atoi(argv[2]), strtoull(argv[3], 0, 10), argv[4], 1));
	return 2;
}
