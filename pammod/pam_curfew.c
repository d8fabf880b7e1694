/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pam_curfew asks the agent of this host whether an account may act, and opens
 * the session with it, which puts its processes under record. It decides one
 * thing itself: what to say when the agent cannot be asked. To accounts that
 * Curfew gave, that is no; to everybody else it is as if we were not there,
 * but for sudo and su on a host in enforce mode.
 *
 *   auth              for sudo alone, as if requisite
 *   account, session  required  pam_curfew.so [enforce] [breakglass=GROUP]
 * (and [door=PATH]; docs/protocol/door.md draws the wire form). PAM_SILENT is
 * not heeded: sudo sets it always, and a no without its reason helps nobody.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define PAM_SM_ACCOUNT
#define PAM_SM_SESSION
#define PAM_SM_AUTH
#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <security/pam_modutil.h>

#include "door.h"

#define EXPORT	    __attribute__((visibility("default")))
#define DOOR	    "/run/curfew/door.sock"
#define MANAGED	    "/run/curfew/managed/"
#define HOMES	    "/run/curfew/home/"
#define UID_MIN	    70000
#define UID_MAX	    524287
#define PATIENCE_MS 2000 /* a stranger's; of ours, who needs the word: */
#define OURS_MS	    6000

struct options {
	const char *door;
	const char *breakglass;
	int enforce;
};

struct call {
	struct options opt;
	const char *service, *user, *ruser, *tty, *rhost;
};

static void
read_options(struct options *o, int argc, const char **argv)
{
	int i;

	o->door = DOOR;
	o->breakglass = NULL;
	o->enforce = 0;
	for (i = 0; i < argc; i++) {
		if (strcmp(argv[i], "enforce") == 0)
			o->enforce = 1;
		else if (strncmp(argv[i], "breakglass=", 11) == 0)
			o->breakglass = argv[i] + 11;
		else if (strncmp(argv[i], "door=", 5) == 0)
			o->door = argv[i] + 5;
	}
}

static const char *
item(pam_handle_t *pamh, int what)
{
	const void *value = NULL;

	if (pam_get_item(pamh, what, &value) != PAM_SUCCESS || value == NULL)
		return "";
	return value;
}

/* Whether a uid is one that Curfew gives. */
static int
given(uid_t uid)
{
	return uid >= UID_MIN && uid <= UID_MAX;
}

static void
read_call(struct call *c, pam_handle_t *pamh, int argc, const char **argv)
{
	struct passwd *pw;

	read_options(&c->opt, argc, argv);
	c->service = item(pamh, PAM_SERVICE);
	c->user = item(pamh, PAM_USER);
	c->ruser = item(pamh, PAM_RUSER);
	c->tty = item(pamh, PAM_TTY);
	c->rhost = item(pamh, PAM_RHOST);
	/* su may not say who calls; the process's real uid always does. */
	if (c->ruser[0] == '\0' && getuid() != 0 &&
	    (pw = pam_modutil_getpwuid(pamh, getuid())) != NULL)
		c->ruser = pw->pw_name;
}

/* Milliseconds left until the deadline, never below zero. */
static int
left_ms(const struct timespec *deadline)
{
	struct timespec now;
	int64_t ms;

	if (clock_gettime(CLOCK_MONOTONIC, &now) == -1)
		return 0;
	ms = (int64_t)(deadline->tv_sec - now.tv_sec) * 1000 +
	     (deadline->tv_nsec - now.tv_nsec) / 1000000;
	return ms < 0 ? 0 : ms > OURS_MS ? OURS_MS : (int)ms;
}

/* Waits until fd is ready for what, or the deadline. */
static int
ready(int fd, short what, const struct timespec *deadline)
{
	struct pollfd p = { .fd = fd, .events = what };
	int n, ms;

	do {
		ms = left_ms(deadline);
		n = poll(&p, 1, ms);
	} while (n == -1 && errno == EINTR && ms > 0);
	return n == 1 && (p.revents & what) != 0;
}

/* Whether root alone can write what is at path. */
static int
of_root(const char *path, mode_t type)
{
	struct stat st;

	return lstat(path, &st) == 0 && (st.st_mode & S_IFMT) == type &&
	       st.st_uid == 0 && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* A door has to be a socket of root's, no link, in a folder of root's. */
static int
genuine(struct sockaddr_un sa)
{
	char *slash = strrchr(sa.sun_path, '/');

	if (slash == NULL || slash == sa.sun_path ||
	    !of_root(sa.sun_path, S_IFSOCK))
		return 0;
	*slash = '\0';
	return of_root(sa.sun_path, S_IFDIR);
}

/* Connects to the door, and to nobody but root behind it. */
static int
dial(const char *path, const struct timespec *deadline)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct ucred peer;
	struct timespec pause = { 0, 5000000 };
	socklen_t len = sizeof(peer);
	size_t n = strlen(path);
	int fd, err;

	if (n >= sizeof(sa.sun_path))
		return -1;
	memcpy(sa.sun_path, path, n);
	if (!genuine(sa))
		return -1;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return -1;
	/* A full queue says EAGAIN at once on a unix socket, and cannot be
	 * polled for: ask again until there is room or it is too late. */
	while ((err = connect(fd, (struct sockaddr *)&sa, sizeof(sa))) == -1 &&
	       (errno == EAGAIN || errno == EINTR) && left_ms(deadline) > 0)
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	if (err == -1 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1 ||
	    len != sizeof(peer) || peer.uid != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Asks the door. Anything but one whole reply of the right form in time
 * leaves the reply as it was: no. Returns whether there was an answer. */
static int
ask(const struct call *c, uint32_t kind, int ms, struct door_reply *r)
{
	struct door_question q = { .magic = DOOR_QUESTION, .kind = kind };
	struct door_reply got;
	struct timespec deadline;
	int fd = -1, answered = 0;
	char more;

	if (clock_gettime(CLOCK_MONOTONIC, &deadline) == -1)
		goto out;
	deadline.tv_sec += ms / 1000;
	if (!door_text(q.service, sizeof(q.service), c->service) ||
	    !door_text(q.user, sizeof(q.user), c->user) ||
	    !door_text(q.ruser, sizeof(q.ruser), c->ruser) ||
	    !door_text(q.tty, sizeof(q.tty), c->tty))
		goto out;
	/* Where the call comes from decides nothing: an odd one is left out. */
	if (!door_text(q.rhost, sizeof(q.rhost), c->rhost))
		memset(q.rhost, 0, sizeof(q.rhost));
	if ((fd = dial(c->opt.door, &deadline)) == -1)
		goto out;
	if (!ready(fd, POLLOUT, &deadline) ||
	    send(fd, &q, sizeof(q), MSG_NOSIGNAL) != (ssize_t)sizeof(q))
		goto out;
	if (!ready(fd, POLLIN, &deadline) ||
	    recv(fd, &got, sizeof(got), MSG_TRUNC) != (ssize_t)sizeof(got))
		goto out;
	/* The agent answers once and hangs up; who says more is not it. */
	if (!ready(fd, POLLIN, &deadline) ||
	    recv(fd, &more, sizeof(more), 0) != 0)
		goto out;
	answered = door_reply_ok(&got);
	if (answered)
		*r = got;
out:
	if (fd != -1)
		close(fd);
	return answered;
}

/* Whether the account is one of ours, seen without the agent: by our marker,
 * or by a uid and a home of ours, as a site's directory may use the uids.
 * Without pamh by the marker alone. */
static int
managed(pam_handle_t *pamh, const char *name)
{
	char path[sizeof(MANAGED) + 32] = MANAGED;
	struct passwd *pw;
	struct stat st;
	size_t n = strlen(name);

	if (n == 0)
		return 0;
	if (n < 32 && strchr(name, '/') == NULL && name[0] != '.') {
		memcpy(path + sizeof(MANAGED) - 1, name, n + 1);
		if (lstat(path, &st) == 0)
			return 1;
	}
	pw = pamh == NULL ? NULL : pam_modutil_getpwnam(pamh, name);
	return pw != NULL && given(pw->pw_uid) && pw->pw_dir != NULL &&
	       strncmp(pw->pw_dir, HOMES, sizeof(HOMES) - 1) == 0;
}

/* sudo and su give another account's rights. */
static int
elevates(const char *service)
{
	return strcmp(service, "sudo") == 0 || strcmp(service, "sudo-i") == 0 ||
	       strcmp(service, "su") == 0 || strcmp(service, "su-l") == 0;
}

/* Whether root calls. sudo and su say it in PAM_RUSER, or the process does. */
static int
by_root(pam_handle_t *pamh, const struct call *c)
{
	struct passwd *pw;

	if (c->ruser[0] == '\0')
		return getuid() == 0;
	if (strcmp(c->ruser, "root") == 0)
		return 1;
	pw = pam_modutil_getpwnam(pamh, c->ruser);
	return pw != NULL && pw->pw_uid == 0;
}

static int
refused_by_mode(pam_handle_t *pamh, const struct call *c)
{
	if (!c->opt.enforce || !elevates(c->service) || by_root(pamh, c))
		return 0;
	return c->opt.breakglass == NULL || c->ruser[0] == '\0' ||
	       !pam_modutil_user_in_group_nam_nam(
		   pamh, c->ruser, c->opt.breakglass);
}

static int
stranger(pam_handle_t *pamh, const struct call *c)
{
	if (!refused_by_mode(pamh, c))
		return PAM_IGNORE;
	pam_error(pamh,
	    "curfew: here %s is for live grants only: `curfew request` asks",
	    c->service);
	pam_syslog(pamh, LOG_NOTICE, "refused: no grant, host in enforce mode");
	return PAM_PERM_DENIED;
}

static int
refuse(pam_handle_t *pamh, const char *line, const char *why)
{
	pam_error(pamh, "%s", line);
	pam_syslog(pamh, LOG_NOTICE, "refused: %s", why);
	return PAM_PERM_DENIED;
}

/* The agent's line, of which a terminal is shown printable ASCII alone. */
static void
show(pam_handle_t *pamh, struct door_reply *r)
{
	size_t i;

	for (i = 0; r->message[i] != '\0'; i++)
		if ((unsigned char)r->message[i] > '~')
			r->message[i] = '?';
	if (r->verdict == DOOR_ALLOW)
		pam_info(pamh, "%s", (const char *)r->message);
	else
		pam_error(pamh, "%s", (const char *)r->message);
}

/* Root on the console comes in whatever the agent does, and root who calls
 * sudo or su. A process of ours is never root, whatever it is called. */
static int
root_alone(const struct call *c)
{
	return strcmp(c->user, "root") == 0 && !given(getuid()) &&
	       (c->ruser[0] == '\0' || strcmp(c->ruser, "root") == 0);
}

static int
decide(pam_handle_t *pamh, const struct call *c, uint32_t kind)
{
	struct door_reply r = { 0 };
	int ours = managed(NULL, c->user) || managed(NULL, c->ruser);

	if (root_alone(c))
		return PAM_IGNORE;
	if (c->user[0] == '\0') {
		pam_syslog(pamh, LOG_NOTICE, "refused: no account is named");
		return PAM_PERM_DENIED;
	}
	/* What outlives its account has no name to ask for. */
	if (c->ruser[0] == '\0' && given(getuid()))
		return refuse(pamh,
		    "curfew: your account on this host has "
		    "ended; ask with `curfew request`",
		    "account has ended");
	if (!ask(c, kind, ours ? OURS_MS : PATIENCE_MS, &r)) {
		if (!managed(pamh, c->user) && !managed(pamh, c->ruser))
			return stranger(pamh, c);
		return refuse(pamh,
		    "curfew: the agent on this host does not "
		    "answer, so no grant can be checked; ask an administrator "
		    "to look at `systemctl status curfew-agent`",
		    "the agent does not answer");
	}
	if (r.message[0] != '\0')
		show(pamh, &r);
	if (r.verdict == DOOR_ALLOW)
		return PAM_SUCCESS;
	if (r.verdict == DOOR_STRANGER)
		return stranger(pamh, c);
	pam_syslog(pamh, LOG_NOTICE, "refused: no live grant");
	return PAM_PERM_DENIED;
}

EXPORT int
pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct call c;

	(void)flags;
	read_call(&c, pamh, argc, argv);
	return decide(pamh, &c, DOOR_ACCOUNT);
}

EXPORT int
pam_sm_open_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct call c;

	(void)flags;
	read_call(&c, pamh, argc, argv);
	/* Not PAM_SESSION_ERR: sudo goes on after that. */
	return decide(pamh, &c, DOOR_OPEN);
}

/* The end of a session never fails: what is left of it, the agent ends. */
EXPORT int
pam_sm_close_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct door_reply r = { 0 };
	struct call c;

	(void)flags;
	read_call(&c, pamh, argc, argv);
	if (!root_alone(&c))
		(void)ask(&c, DOOR_CLOSE, PATIENCE_MS, &r);
	return PAM_IGNORE;
}

/* sudo asks for a password only where no rule of a grant matched, and our
 * accounts have none. Not PAM_AUTH_ERR: sudo would ask twice more. */
EXPORT int
pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	(void)flags, (void)argc, (void)argv;
	if (!managed(pamh, item(pamh, PAM_RUSER)))
		return PAM_IGNORE;
	(void)refuse(pamh,
	    "curfew: no grant of yours lets sudo run this: `curfew request`",
	    "no grant for this command");
	return PAM_CRED_INSUFFICIENT;
}

EXPORT int
pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	(void)pamh, (void)flags, (void)argc, (void)argv;
	return PAM_IGNORE;
}
