package keep

import (
	"errors"
	"testing"

	"curfew.internal/clock"
)

// A slow file's sync waits until it is let go, and then says what it is told.
type slow struct {
	file
	let chan error
}

func (s slow) Sync() error { return errors.Join(<-s.let, s.file.Sync()) }

// Who waits at a terminal does not wait for the disk; what the disk then
// refuses is written again.
func TestNoteWaitsForTheKernelAlone(t *testing.T) {
	o := openBox(t, Config{Dir: t.TempDir(), Clock: clock.System{}})
	let := make(chan error, 2)
	o.create = func(name string) (file, error) {
		f, err := createFile(name)
		return slow{f, let}, err
	}
	stop := run(t, o)
	if err := o.Note(entry(1)); err != nil {
		t.Fatal(err)
	}
	if first, entries, err := o.Next(0, 100); len(entries) > 0 || err != nil {
		t.Errorf("entry %d is sent before the disk has it: %v", first, err)
	}
	let <- errors.New("bad sector")
	let <- nil
	if err := o.Append(entry(2)); err != nil && !errors.Is(err, ErrHeld) {
		t.Fatal(err)
	}
	close(let)
	stop()
	if got := all(t, o, 0); len(got) != 2 || got[0].Session != 1 || got[1].Session != 2 {
		t.Errorf("%+v", got)
	}
}
