package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/durable"
	"curfew.internal/wire/terminal"
)

// Files of one recording, in a folder that is named like it:
//
//	info.json    what is recorded
//	lock         held by the recorder for as long as it lives
//	tty          the terminal that is recorded, /dev/pts/N
//	NNNNNN.part  the segment that grows
//	NNNNNN.cast  a segment that is whole
//	end.json     why it ended
//	watched      somebody looks on: segments are short
const (
	infoName    = "info.json"
	lockName    = "lock"
	ttyName     = "tty"
	endName     = "end.json"
	watchedName = "watched"
	partExt     = ".part"
	castExt     = ".cast"
)

// Info is what a recording is of.
type Info struct {
	ID      string    `json:"id"`
	Session uint64    `json:"session"`
	Grant   string    `json:"grant"`
	Person  string    `json:"person"`
	Boot    string    `json:"boot"`
	Typed   bool      `json:"typed"`
	Strict  bool      `json:"strict"`
	Started time.Time `json:"started"`
}

// End is how a recording ended.
type End struct {
	At   time.Time `json:"at"`
	Why  string    `json:"why"`
	Lost uint64    `json:"lost,omitempty"` // bytes that no segment tells of as missing
	Cut  bool      `json:"cut,omitempty"`  // what runs in the session is to end with it
}

func infoOf(id string, a terminal.Answer, at time.Time) Info {
	return Info{ID: id, Session: a.Session, Grant: a.Grant, Person: a.Person, Boot: a.Boot, Typed: a.Typed, Strict: a.Strict, Started: at}
}

func segmentName(n uint64, ext string) string { return fmt.Sprintf("%06d%s", n, ext) }

// numberOf is the number in a segment's name.
func numberOf(name, ext string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ext)
	n, err := strconv.ParseUint(digits, 10, 32)
	return n, ok && err == nil && n > 0 && segmentName(n, ext) == name
}

// tryLock takes the lock of a file, which lasts until it is closed.
func tryLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // a name in our own folder
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	var lerr error
	if err == nil {
		err = raw.Control(func(fd uintptr) { lerr = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	}
	if err = errors.Join(err, lerr); err != nil {
		_ = f.Close() // nothing was written to it
		return nil, err
	}
	return f, nil
}

// alive reports whether the recorder of the recording in dir lives.
func alive(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName)) //nolint:gosec // a name in our own folder
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // and with it the lock, if it was free
	raw, err := f.SyscallConn()
	if err != nil {
		return true
	}
	free := false
	err = raw.Control(func(fd uintptr) { free = unix.Flock(int(fd), unix.LOCK_SH|unix.LOCK_NB) == nil })
	return err != nil || !free
}

// ptsMajor is that of the terminals that programs make (devices.txt).
const ptsMajor = 136

// recorded reports whether the terminal is one that a recorder made, and holds:
// what it shows is recorded already.
func recorded(spool string, tty *os.File) bool {
	var st unix.Stat_t
	raw, err := tty.SyscallConn()
	if err != nil {
		return false
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.Fstat(int(fd), &st) }); err != nil || serr != nil {
		return false
	}
	name := "/dev/pts/" + strconv.FormatUint(uint64(unix.Minor(st.Rdev)), 10)
	dirs, err := os.ReadDir(spool)
	if err != nil || unix.Major(st.Rdev) != ptsMajor {
		return false
	}
	for _, d := range dirs {
		dir := filepath.Join(spool, d.Name())
		b, err := os.ReadFile(filepath.Join(dir, ttyName)) //nolint:gosec // a name in our own folder
		if err == nil && string(b) == name && alive(dir) {
			return true
		}
	}
	return false
}

// A usage is what recordings take in a folder.
type usage struct {
	spool, person string
	of            map[string]string // whose a recording is
}

// look returns the bytes of all, and of those of the person's.
func (u usage) look() (all, hers int64) {
	dirs, err := os.ReadDir(u.spool)
	if err != nil {
		return math.MaxInt64, math.MaxInt64 // nothing can be written to it either
	}
	for _, d := range dirs {
		n := size(filepath.Join(u.spool, d.Name()))
		all += n
		if u.whose(d.Name()) == u.person {
			hers += n
		}
	}
	return all, hers
}

func (u usage) whose(name string) string {
	if _, known := u.of[name]; !known {
		var i Info
		if readJSON(filepath.Join(u.spool, name, infoName), &i) != nil {
			return "" // it is being made, or went
		}
		u.of[name] = i.Person
	}
	return u.of[name]
}

func size(dir string) (all int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // it went while we looked
		}
		if info, err := d.Info(); err == nil {
			all += info.Size()
		}
		return nil
	})
	return all
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name) //nolint:gosec // a name in our own folder
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// writeJSON puts a value in place whole or not at all.
func writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(name, b)
}

func writeFile(name string, b []byte) error {
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // a name in our own folder
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name+".new"))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return durable.Names(filepath.Dir(name))
}
