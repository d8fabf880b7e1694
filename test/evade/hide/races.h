/*
 * Programs whose arguments or names another thread changes while the kernel
 * reads them.
 */
#ifndef CURFEW_RACES_H
#define CURFEW_RACES_H

/* Changes the one letter at `at` for as long as it lives. */
static void *
flip(void *at)
{
	for (;;) {
		*(volatile char *)at = 'a';
		*(volatile char *)at = 'b';
	}
	return NULL;
}

/* Programs whose argument another thread changes while the kernel reads it. */
static int
race(int n, const char *dir)
{
	char file[256];
	pthread_t thread;
	int len;

	for (int i = 0; i < n; i++) {
		len = snprintf(file, sizeof(file), "%s/race-%d-a", dir, i);
		pid_t pid = fork();
		if (pid == 0) {
			pthread_create(&thread, NULL, flip, &file[len - 1]);
			usleep(1000 + i % 7);
			_exit(touch("touch", file));
		}
		if (wait_for(pid))
			return 1;
	}
	return 0;
}

static void *
swap(void *link)
{
	const char *other = "/run/evade/other";

	for (;;) {
		unlink(other);
		if (!symlink(TOUCH, other))
			rename(other, link);
		if (!symlink(TRUE, other))
			rename(other, link);
	}
	return NULL;
}

/* Programs by a link that another thread turns to another program. */
static int
turn(int n, const char *dir)
{
	char file[256], link[] = "/run/evade/link";
	char *const args[] = { "true", file, NULL };
	pthread_t thread;

	for (int i = 0; i < n; i++) {
		snprintf(file, sizeof(file), "%s/turn-%d", dir, i);
		pid_t pid = fork();
		if (pid == 0) {
			unlink(link);
			(void)!symlink(TRUE, link);
			pthread_create(&thread, NULL, swap, link);
			usleep(1000 + i % 7);
			execv(link, args);
			_exit(1);
		}
		if (wait_for(pid))
			return 1;
	}
	return 0;
}

#endif
