package keep

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

// What somebody does to the file that is being written costs nothing that an
// agent still has in its hands, and the agent after it finds all.
func TestOutboxSurvivesWhoTakesItsFilesAway(t *testing.T) {
	theirs := untouched(t)
	for _, tt := range []struct {
		name string
		does func(dir, file string) error
	}{
		{"one is removed", func(_, file string) error { return os.Remove(file) }},
		{"another takes its place", func(_, file string) error {
			return errors.Join(os.Remove(file), os.WriteFile(file, []byte("mine"), 0o600))
		}},
		{"a folder takes its place", func(_, file string) error {
			return errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "more"), 0o700))
		}},
		{"a pipe takes its place", func(_, file string) error { return errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)) }},
		{"a link takes its place", func(_, file string) error { return errors.Join(os.Remove(file), os.Symlink(theirs, file)) }},
		{"the folder is removed", func(dir, _ string) error { return os.RemoveAll(dir) }},
		{"the folder is renamed", func(dir, _ string) error { return os.Rename(dir, dir+".old") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Dir: t.TempDir(), Clock: &fixed{}, Host: "db1"}
			o := openBox(t, c)
			name := o.Name()
			do(t, o.Append(entry(1), entry(2)))
			dir := filepath.Join(c.Dir, "outbox")
			do(t, tt.does(dir, the(t, dir)))
			inOrder(t, o, 2)
			do(t, o.Append(entry(3)))
			inOrder(t, o, 3)
			if tt.name == "the folder is renamed" {
				return // there it is, and there it is written
			}
			o = openBox(t, c) // it was killed
			inOrder(t, o, 3)
			if o.Name() != name {
				t.Error("another name")
			}
		})
	}
}

// untouched is a file of somebody else's, which is to stay as it is.
func untouched(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "theirs")
	do(t, os.WriteFile(file, []byte("theirs"), 0o600))
	t.Cleanup(func() {
		if b, err := os.ReadFile(filepath.Clean(file)); err != nil || string(b) != "theirs" {
			t.Errorf("what a link led to is now %q, %v", b, err)
		}
	})
	return file
}

// What is mounted over the folder does not come between the agent and its
// files.
func TestOutboxIsWrittenBelowWhatIsMountedOverIt(t *testing.T) {
	need.Root(t)
	c := Config{Dir: t.TempDir(), Clock: &fixed{}, Host: "db1"}
	o := openBox(t, c)
	do(t, o.Append(entry(1)))
	do(t, unix.Mount("tmpfs", c.Dir, "tmpfs", 0, "size=4k"))
	off := sync.OnceValue(func() error { return unix.Unmount(c.Dir, unix.MNT_DETACH) })
	t.Cleanup(func() { do(t, off()) })
	inOrder(t, o, 1)
	err := o.Append(entry(2))
	inOrder(t, o, 2)
	do(t, errors.Join(err, off()))
	inOrder(t, openBox(t, c), 2)
}

// A file of which nothing is left, and that nobody holds open, costs what was
// in it: each of its records is told as lost, and what follows goes out.
func TestWhatVanishesFromTheOutboxIsTold(t *testing.T) {
	theirs := untouched(t)
	for _, tt := range []struct {
		name string
		does func(file string) error
	}{
		{"removed", os.Remove},
		{"emptied", func(file string) error { return os.Truncate(file, 0) }},
		{"a folder", func(file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) }},
		{"a pipe", func(file string) error { return errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)) }},
		{"a link", func(file string) error { return errors.Join(os.Remove(file), os.Symlink(theirs, file)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Dir: t.TempDir(), Clock: &fixed{}, Host: "db1"}
			do(t, openBox(t, c).Append(entry(1), entry(2)))
			do(t, openBox(t, c).Append(entry(3), entry(4)))
			o := openBox(t, c)
			inOrder(t, o, 4)
			if _, _, err := o.Next(0, 1); err != nil { // it is the one that was read last
				t.Fatal(err)
			}
			do(t, tt.does(the(t, filepath.Join(c.Dir, "outbox"))))
			got := all(t, o, 0)
			if len(got) != 4 || got[0].Lost != 1 || got[1].Lost != 1 || got[2].Session != 3 || got[3].Session != 4 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// bad is a disk with a bad sector.
type bad struct{ *bytes.Reader }

func (b bad) ReadAt(p []byte, at int64) (int, error) {
	if at < 2*sector && at+int64(len(p)) > sector {
		return 0, unix.EIO
	}
	return b.Reader.ReadAt(p, at)
}

func TestABadSectorCostsWhatLiesInIt(t *testing.T) {
	var text []byte
	const n = 400
	for i := range uint64(n) {
		text = appendFrame(text, i+1, entry(i+1).Bytes())
	}
	b := make([]byte, len(text))
	if err := fill(b, bad{bytes.NewReader(text)}, 0); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	whole, most := scan(text, 1), 0
	for _, f := range whole {
		if f.end() > sector && int64(f.from)-frameHead < 2*sector {
			most++
		}
	}
	if got := scan(b, 1); len(got) != n-most || got[len(got)-1].seq != n || most == 0 {
		t.Errorf("%d frames are left of %d, and %d lay in the sector", len(got), n, most)
	}
}

// the is the first file of entries in a folder.
func the(t *testing.T, dir string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"+extension))
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	return found[0]
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inOrder fails unless entries 1 to n are there.
func inOrder(t *testing.T, o *Outbox, n int) {
	t.Helper()
	got := all(t, o, 0)
	if len(got) != n {
		t.Fatalf("%d entries, want %d: %+v", len(got), n, got)
	}
	for i, e := range got {
		if e.Kind != ledger.Exec || e.Session != uint64(i+1) {
			t.Errorf("entry %d is %+v", i+1, e)
		}
	}
}
