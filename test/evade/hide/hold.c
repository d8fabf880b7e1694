/*
 * Has everybody on the file system of a folder wait for it before a file is
 * opened, and answers nobody. Once that is so it makes a file elsewhere.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/fanotify.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	int fd =
	    fanotify_init(FAN_CLASS_CONTENT | FAN_UNLIMITED_QUEUE, O_RDONLY);

	if (argc != 3 || fd < 0)
		return 1;
	if (fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM,
		FAN_OPEN_PERM | FAN_OPEN_EXEC_PERM, AT_FDCWD, argv[1])) {
		perror("fanotify_mark");
		return 1;
	}
	if (open(argv[2], O_CREAT | O_WRONLY, 0600) < 0)
		return 1;
	for (;;)
		pause();
}
