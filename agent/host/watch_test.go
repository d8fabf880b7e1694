package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"curfew.internal/agent/enforce"
)

func TestAFolderThatWasTakenAwayIsWatchedAgain(t *testing.T) {
	for name, take := range map[string]func(h *Host) error{
		"removed": func(h *Host) error { return os.RemoveAll(h.path(sudoersDir)) },
		"moved":   func(h *Host) error { return os.Rename(h.path(sudoersDir), h.path("away")) },
		"made anew": func(h *Host) error {
			return errors.Join(os.RemoveAll(h.path(sudoersDir)), ignore(os.Mkdir(h.path(sudoersDir), 0o777), os.ErrExist))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			ctx, cancel := context.WithCancel(t.Context())
			woken, done := make(chan struct{}, 1), make(chan error, 1)
			go func() {
				done <- h.Watch(ctx, func(string) {}, func() {
					select {
					case woken <- struct{}{}:
					default:
					}
				}, func(error) {})
			}()
			defer func() {
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}()
			// A wake-up says that the folders are watched.
			touch := func() bool { return wakes(t, h, woken) }
			until(t, touch)
			must(t, take(h))
			until(t, func() bool {
				info, err := os.Stat(h.path(sudoersDir))
				return err == nil && info.Mode().Perm() == 0o750 && touch()
			})
			thing := enforce.Thing{Kind: enforce.SudoRule, Name: "g-abcdefghijklmnop"}
			must(t, h.Apply(t.Context(), enforce.Step{Op: enforce.Put, Thing: thing, Content: wanted()[thing]}))
		})
	}
}

// What this program may have of inotify(7), in a user namespace where it watches
// the root that the environment names, without what else that names.
const (
	inotifyNone = "/proc/sys/user/max_inotify_instances"
	watchNone   = "/proc/sys/user/max_inotify_watches"
	unwatchable = "CURFEW_TEST_UNWATCHABLE"
	without     = "CURFEW_TEST_WITHOUT"
)

func init() {
	root := os.Getenv(unwatchable)
	if root == "" {
		return
	}
	none := os.Getenv(without)
	if err := os.WriteFile(none, []byte("0"), 0); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	h := &Host{Root: root}
	err := h.Watch(context.Background(), func(string) { fmt.Println("watched") }, func() { fmt.Println("woken") }, func(err error) {
		fmt.Println("said:", err)
		if err != nil {
			if err := os.WriteFile(none, []byte("99"), 0); err != nil {
				fmt.Println(err)
			}
		}
	})
	fmt.Println("ended:", err)
	os.Exit(1)
}

// Root can use up what the kernel lets her watch by, or set it to nothing: the
// agent looks each second then, and watches again once it may.
func TestAHostThatLetsNobodyWatchIsLookedAt(t *testing.T) {
	said := saidUnwatched(t, inotifyNone)
	if want := []string{"said: watch folders: couldn't initialize inotify: too many open files", "woken"}; !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
}

// So it is where no folder may be watched.
func TestAHostThatLetsNoFolderBeWatchedIsLookedAt(t *testing.T) {
	said := saidUnwatched(t, watchNone)
	if len(said) == 0 || !strings.HasPrefix(said[0], "said: watch ") || !slices.Contains(said, "woken") {
		t.Errorf("%q", said)
	}
}

// saidUnwatched is what is said until a folder is watched.
func saidUnwatched(t *testing.T, none string) (said []string) {
	t.Helper()
	h := machine(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = []string{unwatchable + "=" + h.Root, without + "=" + none}
	ids := []syscall.SysProcIDMap{{Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "watched"; {
		said = append(said, lines.Text())
	}
	return said
}

// wakes writes a rule of nobody's and says whether somebody was woken by it.
func wakes(t *testing.T, h *Host, woken chan struct{}) bool {
	t.Helper()
	quiet := time.NewTimer(100 * time.Millisecond)
	defer quiet.Stop()
	for calm := false; !calm; { // what came before does not count
		select {
		case <-woken:
		case <-quiet.C:
			calm = true
		}
	}
	if os.WriteFile(h.path(sudoersDir, "evil"), []byte("x ALL=(ALL) ALL\n"), 0o440) != nil {
		return false
	}
	select {
	case <-woken:
		return true
	case <-time.After(500 * time.Millisecond):
		return false
	}
}
