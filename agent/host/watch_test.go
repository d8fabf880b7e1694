package host

import (
	"context"
	"errors"
	"os"
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
				})
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
