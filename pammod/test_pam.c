/* SPDX-License-Identifier: Apache-2.0 */
/* The whole module against a made-up libpam and made-up agents: each is a
 * child process behind a real socket. */
#include "pam_curfew.c"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

struct pam_handle {
	const char *service, *user, *ruser, *tty, *rhost;
	char said[600];
};

enum manner {
	YES,
	NO,
	STRANGER,
	TWICE,
	LATE_TWICE,
	SHORT,
	LONG,
	ODD,
	GARBAGE,
	ESCAPE,
	HIGH,
	DIES,
	SILENT,
	STAYS
};

static char dir[] = "/tmp/cfw-pam-XXXXXX";
static char door[64];
static struct passwd ana = {
	.pw_name = "ana", .pw_uid = 70007, .pw_dir = "/run/curfew/home/ana"
};
static struct passwd sssd = {
	.pw_name = "sssd", .pw_uid = 200007, .pw_dir = "/home/sssd"
};
static struct passwd bare = { .pw_name = "bare", .pw_uid = 200008 };
static struct passwd twin = { .pw_name = "toor", .pw_uid = 0 };
static int failed;

int
pam_get_item(const pam_handle_t *h, int what, const void **to)
{
	*to = what == PAM_SERVICE ? h->service
	      : what == PAM_USER  ? h->user
	      : what == PAM_RUSER ? h->ruser
	      : what == PAM_TTY	  ? h->tty
				  : h->rhost;
	return PAM_SUCCESS;
}

int
pam_prompt(pam_handle_t *h, int style, char **reply, const char *fmt, ...)
{
	va_list ap;

	(void)style, (void)reply;
	va_start(ap, fmt);
	vsnprintf(h->said, sizeof(h->said), fmt, ap);
	va_end(ap);
	return PAM_SUCCESS;
}

void
pam_syslog(const pam_handle_t *h, int priority, const char *fmt, ...)
{
	(void)h, (void)priority, (void)fmt;
}

struct passwd *
pam_modutil_getpwnam(pam_handle_t *h, const char *name)
{
	(void)h;
	if (strcmp(name, "ana") == 0)
		return &ana;
	if (strcmp(name, "sssd") == 0)
		return &sssd;
	if (strcmp(name, "bare") == 0)
		return &bare;
	return strcmp(name, "toor") == 0 ? &twin : NULL;
}

struct passwd *
pam_modutil_getpwuid(pam_handle_t *h, uid_t uid)
{
	(void)h;
	return uid == 70007 ? &ana : NULL;
}

int
pam_modutil_user_in_group_nam_nam(
    pam_handle_t *h, const char *user, const char *group)
{
	(void)h;
	return strcmp(user, "glass") == 0 && strcmp(group, "firemen") == 0;
}

static void
check(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "test_pam: not so: %s\n", what);
		failed = 1;
	}
}

static void
answer(int fd, enum manner m)
{
	struct door_reply r = { .magic = DOOR_REPLY, .verdict = DOOR_ALLOW };
	struct door_question q;
	char more[sizeof(r) + 1] = { 0 };
	struct timespec moment = { 0, 20000000 };

	(void)recv(fd, &q, sizeof(q), 0);
	if (m == NO || m == HIGH)
		r.verdict = 0;
	if (m == NO)
		memcpy(r.message, "it ended 14:02", 14);
	if (m == HIGH)
		memcpy(r.message, "a\x9b[2J", 5);
	if (m == ESCAPE)
		r.message[0] = '\x1b';
	if (m == STRANGER)
		r.verdict = DOOR_STRANGER;
	if (m == ODD)
		r.verdict = 1;
	if (m == GARBAGE)
		memset(&r, 'x', sizeof(r));
	memcpy(more, &r, sizeof(r));
	if (m == SHORT)
		(void)send(fd, more, sizeof(r) - 1, 0);
	else if (m == LONG)
		(void)send(fd, more, sizeof(more), 0);
	else if (m != DIES && m != SILENT)
		(void)send(fd, more, sizeof(r), 0);
	if (m == LATE_TWICE)
		nanosleep(&moment, NULL);
	if (m == TWICE || m == LATE_TWICE)
		(void)send(fd, more, sizeof(r), 0);
	if (m == SILENT || m == STAYS)
		(void)recv(fd, &q, sizeof(q), 0); /* until the module leaves */
}

/* Starts an agent that answers so to all who come. */
static pid_t
agent(enum manner m)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0), c;
	pid_t pid;

	memcpy(sa.sun_path, door, strlen(door));
	unlink(door);
	if (fd == -1 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == -1 ||
	    listen(fd, 16) == -1 || (pid = fork()) == -1) {
		perror("agent");
		exit(1);
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGPIPE, SIG_IGN);
		while ((c = accept(fd, NULL, NULL)) != -1) {
			answer(c, m);
			close(c);
		}
		_exit(0);
	}
	close(fd);
	return pid;
}

static void
stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int
account(struct pam_handle *h, int enforce)
{
	char arg[80];
	const char *argv[] = { arg, "breakglass=firemen", "enforce" };

	snprintf(arg, sizeof(arg), "door=%s", door);
	h->said[0] = '\0';
	return pam_sm_acct_mgmt(h, PAM_SILENT, enforce ? 3 : 2, argv);
}

static int
as(const char *service, const char *user, const char *ruser, int enforce)
{
	struct pam_handle h = {
		.service = service, .user = user, .ruser = ruser
	};

	return account(&h, enforce);
}

static void
answers(void)
{
	static const struct {
		enum manner m;
		int want;
		const char *says;
	} cases[] = {
		{ YES, PAM_SUCCESS, "" },
		{ NO, PAM_PERM_DENIED, "14:02" },
		{ STRANGER, PAM_IGNORE, "" },
		{ ODD, PAM_PERM_DENIED, "" },
		{ TWICE, PAM_PERM_DENIED, "does not answer" },
		{ LATE_TWICE, PAM_PERM_DENIED, "does not answer" },
		{ SHORT, PAM_PERM_DENIED, "does not answer" },
		{ LONG, PAM_PERM_DENIED, "does not answer" },
		{ GARBAGE, PAM_PERM_DENIED, "does not answer" },
		{ ESCAPE, PAM_PERM_DENIED, "does not answer" },
		{ HIGH, PAM_PERM_DENIED, "a?[2J" },
		{ DIES, PAM_PERM_DENIED, "does not answer" },
		{ SILENT, PAM_PERM_DENIED, "does not answer" },
		{ STAYS, PAM_PERM_DENIED, "does not answer" },
	};
	struct pam_handle h = { .service = "sshd", .user = "ana" };
	char what[64];
	size_t i;
	pid_t pid;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		pid = agent(cases[i].m);
		snprintf(what, sizeof(what), "answer %zu of the list", i);
		check(account(&h, 0) == cases[i].want &&
			  strstr(h.said, cases[i].says) != NULL,
		    what);
		stop(pid);
	}
}

static void
no_agent(void)
{
	unlink(door);
	check(as("sshd", "ana", NULL, 0) == PAM_PERM_DENIED, "ours is refused");
	check(as("sudo", "root", "ana", 0) == PAM_PERM_DENIED, "and by sudo");
	check(as("sshd", "local", NULL, 1) == PAM_IGNORE, "others log in");
	check(as("sshd", "sssd", NULL, 1) == PAM_IGNORE, "a directory's too");
	check(as("sshd", "bare", NULL, 1) == PAM_IGNORE, "one without a home");
	check(as("sudo", "root", "local", 0) == PAM_IGNORE, "and may sudo");
	check(
	    as("sudo", "root", "local", 1) == PAM_PERM_DENIED, "not enforced");
	check(as("sudo", "root", "glass", 1) == PAM_IGNORE, "break-glass may");
	check(as("sudo", "root", "toor", 1) == PAM_IGNORE, "uid 0 may");
	check(as("su", "root", "root", 1) == PAM_IGNORE, "root may");
	check(as("login", "root", NULL, 1) == PAM_IGNORE, "root logs in");
	check(as("su", "ana", "root", 0) == PAM_PERM_DENIED, "not as ours");
	check(as("sshd", NULL, NULL, 0) == PAM_PERM_DENIED, "nobody named");
	check(as("sshd", "", NULL, 0) == PAM_PERM_DENIED, "an empty name");
	check(as("sshd", "../../../etc/passwd", NULL, 0) == PAM_IGNORE, "path");
	check(as("sshd", ".", NULL, 0) == PAM_IGNORE, "a dot");
}

static void
long_names(void)
{
	static char name[65537];
	pid_t pid = agent(YES);

	memset(name, 'x', sizeof(name) - 1);
	check(as("sshd", name, NULL, 0) == PAM_IGNORE, "64 kB, a stranger's");
	check(as("sudo", name, "ana", 0) == PAM_PERM_DENIED, "64 kB and ours");
	check(as(name, "ana", NULL, 0) == PAM_PERM_DENIED, "a long service");
	check(as("sshd", "a\nb", NULL, 0) == PAM_IGNORE, "a newline");
	stop(pid);
}

/* The door is genuine only if root alone could have put it there. */
static void
planted(void)
{
	char other[80];
	pid_t pid = agent(YES);

	check(as("sshd", "ana", NULL, 0) == PAM_SUCCESS, "a genuine door");
	chmod(dir, 0777);
	check(as("sshd", "ana", NULL, 0) == PAM_PERM_DENIED, "open folder");
	chmod(dir, 0755);
	chmod(door, 0666);
	check(as("sshd", "ana", NULL, 0) == PAM_PERM_DENIED, "open socket");
	chmod(door, 0600);
	if (chown(door, 65534, 65534) == -1)
		perror("chown");
	check(as("sshd", "ana", NULL, 0) == PAM_PERM_DENIED, "nobody's socket");
	if (chown(door, 0, 0) == -1)
		perror("chown");
	snprintf(other, sizeof(other), "%s.real", door);
	check(rename(door, other) == 0 && symlink(other, door) == 0, "a link");
	check(as("sshd", "ana", NULL, 0) == PAM_PERM_DENIED, "a link");
	unlink(door);
	unlink(other);
	stop(pid);
}

/* Runs do in a child, which says by its exit code whether all was well. */
static void
apart(const char *what, int (*run)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(run() ? 0 : 1);
	check(
	    pid != -1 && waitpid(pid, &status, 0) == pid && status == 0, what);
}

static int
no_stdio(void)
{
	close(0);
	close(1);
	close(2);
	return as("sshd", "ana", NULL, 0) == PAM_SUCCESS;
}

static int
no_descriptors(void)
{
	struct rlimit none = { 0, 0 };

	return setrlimit(RLIMIT_NOFILE, &none) == 0 &&
	       as("sshd", "ana", NULL, 0) == PAM_PERM_DENIED;
}

static int
elsewhere(void)
{
	return chroot("/proc/self/fdinfo") == 0 && chdir("/") == 0 &&
	       as("sshd", "ana", NULL, 0) == PAM_PERM_DENIED;
}

static int
nameless(void)
{
	return setresuid(70099, 0, 0) == 0 &&
	       as("su", "root", NULL, 0) == PAM_PERM_DENIED;
}

static int
named_by_uid(void)
{
	return setresuid(70007, 0, 0) == 0 &&
	       as("su", "root", NULL, 0) == PAM_PERM_DENIED;
}

static int
target_is_no_caller(void)
{
	return setresuid(4242, 0, 0) == 0 &&
	       as("su", "glass", NULL, 1) == PAM_PERM_DENIED;
}

static void
tick(int sig)
{
	(void)sig;
}

/* A caller whose signals never rest does not stretch its seconds. */
static int
ticking(void)
{
	struct sigaction sa = { .sa_handler = tick };
	struct itimerval often = { { 0, 2000 }, { 0, 2000 } };
	struct timespec from, to;
	int verdict;

	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	clock_gettime(CLOCK_MONOTONIC, &from);
	verdict = as("sshd", "ana", NULL, 0);
	clock_gettime(CLOCK_MONOTONIC, &to);
	return verdict == PAM_PERM_DENIED && to.tv_sec - from.tv_sec < 30;
}

static int
closing_never_fails(void)
{
	struct pam_handle h = { .service = "sshd", .user = "ana" };
	char arg[80];
	const char *argv[] = { arg };

	unlink(door);
	snprintf(arg, sizeof(arg), "door=%s", door);
	return pam_sm_close_session(&h, 0, 1, argv) == PAM_IGNORE &&
	       pam_sm_open_session(&h, 0, 1, argv) == PAM_PERM_DENIED &&
	       pam_sm_authenticate(&h, 0, 1, argv) == PAM_IGNORE &&
	       pam_sm_setcred(&h, 0, 1, argv) == PAM_IGNORE;
}

int
main(void)
{
	pid_t pid;

	if (geteuid() != 0) {
		fprintf(stderr, "test_pam: needs root\n");
		return getenv("CI") != NULL;
	}
	umask(022);
	if (mkdtemp(dir) == NULL || chmod(dir, 0755) == -1)
		return 1;
	snprintf(door, sizeof(door), "%s/door.sock", dir);
	answers();
	no_agent();
	long_names();
	planted();
	pid = agent(YES);
	apart("closed stdin, stdout, stderr", no_stdio);
	apart("no descriptor to be had", no_descriptors);
	apart("a chroot without the door", elsewhere);
	apart("a process of ours without a name", nameless);
	stop(pid);
	pid = agent(NO);
	apart("su that does not say who calls", named_by_uid);
	stop(pid);
	pid = agent(SILENT);
	apart("a caller with a fast timer", ticking);
	stop(pid);
	apart("break-glass is the caller's, not the target's",
	    target_is_no_caller);
	apart("the end of a session", closing_never_fails);
	unlink(door);
	rmdir(dir);
	return failed;
}
