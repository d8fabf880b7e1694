package watch

import (
	"log/slog"
	"testing"

	"curfew.internal/clock"
	"curfew.internal/test/need"
)

func TestOpenTellsThatItGoesOn(t *testing.T) {
	need.Root(t)
	told := 0
	w, err := Open(Config{
		PinDir: pins(t), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Clock: clock.System{},
		Progress: func() { told++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	closeIt(t, w)
	if told != 6 {
		t.Errorf("systemd hears %d times that the start goes on, of six parts", told)
	}
}
