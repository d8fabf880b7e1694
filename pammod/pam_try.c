/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pam-try USER TTY SERVICE... runs the account phase of each service for an
 * account, as root, and tells what came of it. It asks for nothing, opens no
 * session and changes nothing. `curfew-agent doctor` runs it: the agent itself
 * is static, and libpam loads modules.
 *
 * One line a service: its name, PAM's code, PAM's word for it, and what the
 * modules said, with tabs between.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <security/pam_appl.h>

struct heard {
	char text[512];
	size_t len;
};

/* Keeps what the modules say, on one line. Whoever asks gets no answer. */
static int
hear(int n, const struct pam_message **msg, struct pam_response **resp,
    void *data)
{
	struct heard *h = data;
	const char *s;
	int i;

	*resp = NULL;
	for (i = 0; i < n; i++) {
		if (msg[i]->msg_style != PAM_TEXT_INFO &&
		    msg[i]->msg_style != PAM_ERROR_MSG)
			return PAM_CONV_ERR;
		for (s = msg[i]->msg; *s != '\0'; s++) {
			if (h->len + 1 >= sizeof(h->text))
				break;
			h->text[h->len] = *s;
			if ((unsigned char)*s < ' ' || *s == 0x7f)
				h->text[h->len] = ' ';
			h->len++;
		}
	}
	return PAM_SUCCESS;
}

static void
attempt(const char *service, const char *user, const char *tty)
{
	struct heard h = { { 0 }, 0 };
	struct pam_conv conv = { hear, &h };
	pam_handle_t *pamh = NULL;
	int code;

	code = pam_start(service, user, &conv, &pamh);
	if (code == PAM_SUCCESS &&
	    (code = pam_set_item(pamh, PAM_TTY, tty)) == PAM_SUCCESS)
		code = pam_acct_mgmt(pamh, 0);
	printf("%s\t%d\t%s\t%s\n", service, code, pam_strerror(pamh, code),
	    h.text);
	if (pamh != NULL)
		(void)pam_end(pamh, code);
}

int
main(int argc, char **argv)
{
	int i;

	if (argc < 4 || getuid() != 0) {
		(void)fputs("usage: pam-try USER TTY SERVICE...\n", stderr);
		return 2;
	}
	for (i = 3; i < argc; i++)
		attempt(argv[i], argv[1], argv[2]);
	return fflush(stdout) == 0 ? 0 : 1;
}
