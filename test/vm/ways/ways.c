/*
 * Tries one way to begin something, at a time that it is told, and writes
 * whether it came back. It forks nothing, and opens what it writes to before.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int sock;
static pid_t victim;

/* Whether it is compressed depends on the kernel. */
static int
load(int fd)
{
	if (syscall(SYS_finit_module, fd, "", 0) == 0)
		return 0;
	return syscall(SYS_finit_module, fd, "", 4);
}

static int
try(const char *way)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = 22 << 8 };
	struct timeval now;
	char *const args[] = { "true", NULL };

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
#define WAY(name, call)                                                        \
	if (strcmp(way, name) == 0)                                            \
	return (call) == -1 ? -1 : 0
	WAY("open", open("/ways/made-open", O_WRONLY | O_CREAT, 0600));
	WAY("write", open("/ways/old", O_WRONLY | O_APPEND));
	WAY("truncate", truncate("/ways/long", 0));
	WAY("mkdir", mkdir("/ways/made-mkdir", 0700));
	WAY("rmdir", rmdir("/ways/folder"));
	WAY("mknod", mknod("/ways/made-mknod", S_IFIFO | 0600, 0));
	WAY("symlink", symlink("/", "/ways/made-symlink"));
	WAY("link", link("/ways/old", "/ways/made-link"));
	WAY("unlink", unlink("/ways/unlinked"));
	WAY("rename", rename("/ways/renamed", "/ways/made-rename"));
	WAY("chmod", chmod("/ways/old", 04755));
	WAY("xattr", setxattr("/ways/old", "user.way", "x", 1, 0));
	WAY("setuid", setuid(1));
	WAY("setgid", setgid(1));
	WAY("setgroups", setgroups(0, NULL));
	WAY("userns", unshare(CLONE_NEWUSER));
	WAY("capable", sethostname("freed", 5));
	WAY("exec", execv("/bin/true", args));
	WAY("ptrace", ptrace(PTRACE_SEIZE, victim, 0, 0));
	WAY("traceme", ptrace(PTRACE_TRACEME, 0, 0, 0));
	WAY("kill", kill(victim, SIGKILL));
	WAY("socket", socket(AF_INET, SOCK_DGRAM, 0));
	WAY("connect", connect(sock, (struct sockaddr *)&to, sizeof(to)));
	WAY("mount", mount("way", "/ways/on", "tmpfs", 0, ""));
	WAY("umount", umount("/ways/off"));
	WAY("disguised",
	    mount("/root", "/etc/pam.d", "", MS_BIND | MS_PRIVATE, ""));
	WAY("bpf", syscall(SYS_bpf, 0, "\1\0\0\0\4\0\0\0\4\0\0\0\1\0\0\0", 16));
	WAY("hold", fanotify_mark(fanotify_init(FAN_CLASS_CONTENT, O_RDONLY),
			FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, "/root"));
	WAY("module", load(open("/ways/module", O_RDONLY)));
	gettimeofday(&now, NULL);
	WAY("uring", syscall(SYS_io_uring_setup, 8, calloc(1, 120)));
	WAY("kexec", syscall(SYS_kexec_load, 0UL, 0UL, NULL, 0UL));
	WAY("clock", settimeofday(&now, NULL));
	errno = ENOSYS;
	return -1;
}

int
main(int argc, char **argv)
{
	struct timespec at = { 0 };
	char said[64] = "came back\n";
	int out;

	if (argc != 5)
		return 2;
	at.tv_sec = atol(argv[2]);
	victim = atoi(argv[4]);
	sock = socket(AF_INET, SOCK_STREAM, 0);
	out = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (out == -1 || write(out, "ready\n", 6) != 6)
		return 1;
	clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &at, NULL);
	if (try(argv[1]) == -1)
		snprintf(said, sizeof(said), "errno %d\n", errno);
	(void)!write(out, said, strlen(said));
	close(out);
	pause();
	return 0;
}
