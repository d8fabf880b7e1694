package host

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/test/need"
)

// holder turns this program into one that is told of a folder, by a mask, and
// answers nothing.
const holder = "CURFEW_TEST_HOLDER"

func init() {
	dir := os.Getenv(holder)
	if dir == "" {
		return
	}
	mask, err := strconv.ParseUint(os.Getenv(holder+"_MASK"), 10, 64)
	fd, failed := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil || failed != nil || unix.FanotifyMark(fd, unix.FAN_MARK_ADD, mask|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, dir) != nil {
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString("told\n")
	for {
		time.Sleep(time.Hour)
	}
}

func TestWhoeverIsAskedBeforeFilesAreOpenedIsEnded(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	begin := func(mask uint64) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), holder+"="+dir, holder+"_MASK="+strconv.FormatUint(mask, 10))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		if n, err := out.Read(make([]byte, 5)); n != 5 {
			t.Fatal("it is told of nothing:", err)
		}
		return cmd
	}
	told, asked := begin(unix.FAN_OPEN), begin(unix.FAN_OPEN_PERM)
	opened := make(chan error)
	go func() {
		f, err := os.Open(filepath.Join(dir, "file"))
		if err == nil {
			err = f.Close()
		}
		opened <- err
	}()
	pids := []int{os.Getpid(), told.Process.Pid, asked.Process.Pid}
	if ended := EndHolding(pids); !slices.Equal(ended, pids[2:]) {
		t.Errorf("%v were ended, of %v", ended, pids)
		_ = asked.Process.Kill()
	}
	must(t, <-opened)
	must(t, told.Process.Signal(unix.Signal(0)))
}

func TestWhatAGroupIsAsked(t *testing.T) {
	for text, want := range map[string]bool{
		"pos:\t0\nfanotify flags:4 event-flags:0\nfanotify sdev:2d mflags:0 mask:10000 ignored_mask:0\n": true,
		"fanotify flags:4 event-flags:0\nfanotify mnt_id:1f mflags:0 mask:40000 ignored_mask:0\n":        true,
		"fanotify ino:1 sdev:2d mflags:0 mask:20 ignored_mask:10000 fhandle-bytes:8":                     false,
		"fanotify flags:4 event-flags:0\n": false,
		"mask:":                            false, "mask:zz": false,
	} {
		if asked(text) != want {
			t.Errorf("%q", text)
		}
	}
}
