package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"curfew.internal/cast"
)

// More files of a recording, by which the agent knows how far it is with it:
//
//	state.json        the last segment that it signed for, and that was taken
//	NNNNNN.statement  what it signed
const (
	stateName    = "state.json"
	statementExt = ".statement"
)

// maxSegment bounds a segment that is read, in bytes.
const maxSegment = 4 << 20

// State is how far the agent is with a recording.
type State struct {
	Stated uint64 `json:"stated"` // the last number that it signed for
	Before []byte `json:"before"` // the hash of that statement
	Ended  bool   `json:"ended"`  // that was the last
	Taken  uint64 `json:"taken"`  // up to where the control plane has all
}

// A Spool is the folder of recordings, as the agent sees it.
type Spool struct{ Dir string }

// A Recording is one of them.
type Recording struct {
	Info
	State State
	dir   string
}

// Recordings lists what is there, the oldest first. One that cannot be read is
// told beside the others.
func (s Spool) Recordings() ([]*Recording, error) {
	dirs, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	errs := []error{err}
	var all []*Recording
	for _, d := range dirs {
		if !d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			continue // one is being made
		}
		r := &Recording{dir: filepath.Join(s.Dir, d.Name())}
		err := readJSON(filepath.Join(r.dir, infoName), &r.Info)
		if err == nil {
			if err = readJSON(filepath.Join(r.dir, stateName), &r.State); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		if err == nil && r.ID != d.Name() {
			err = fmt.Errorf("it calls itself %q", r.ID)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("recording %s: %w", d.Name(), err))
			continue
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *Recording) int { return a.Started.Compare(b.Started) })
	return all, errors.Join(errs...)
}

// Taped reports whether the terminal is one that a recorder holds, for the
// person.
func (s Spool) Taped(person, tty string) bool {
	all, _ := s.Recordings() // what cannot be read is not hers
	return slices.ContainsFunc(all, func(r *Recording) bool { return r.Person == person && r.Of(tty) && r.Alive() })
}

// What a recording needs at least, to be begun and ended.
const (
	leastBytes = 1 << 20
	leastFiles = 64
)

// Room says why there is none for another recording on the disk, if so.
func (s Spool) Room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.Dir, &st); err != nil {
		return fmt.Errorf("look for room in %s: %w", s.Dir, err)
	}
	if st.Bavail*uint64(max(1, st.Bsize)) < leastBytes || st.Files > 0 && st.Ffree < leastFiles {
		return ErrFull
	}
	return nil
}

// Alive reports whether its recorder lives.
func (r *Recording) Alive() bool { return alive(r.dir) }

// Of reports whether it records the terminal. Some programs leave the folder
// of a terminal's name out.
func (r *Recording) Of(tty string) bool {
	b, err := os.ReadFile(filepath.Join(r.dir, ttyName))
	return err == nil && tty != "" && strings.TrimPrefix(string(b), "/dev/") == strings.TrimPrefix(tty, "/dev/")
}

// End is how it ended; false: its recorder lives, or ended without a word.
func (r *Recording) End() (End, bool) {
	var e End
	err := readJSON(filepath.Join(r.dir, endName), &e)
	return e, err == nil
}

// Sealed lists the numbers of the segments that are whole.
func (r *Recording) Sealed() ([]uint64, error) {
	files, err := os.ReadDir(r.dir)
	var all []uint64
	for _, f := range files {
		if n, ok := numberOf(f.Name(), castExt); ok {
			all = append(all, n)
		}
	}
	return all, err // by name, which is by number
}

// Salvage makes segments of what a recorder that is dead left growing: its
// whole lines.
func (r *Recording) Salvage() error {
	files, err := os.ReadDir(r.dir)
	errs := []error{err}
	for _, f := range files {
		n, ok := numberOf(f.Name(), partExt)
		if !ok {
			continue
		}
		part := filepath.Join(r.dir, f.Name())
		b, err := os.ReadFile(part) //nolint:gosec // a name in our own folder
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b = b[:cast.Whole(b)]
		if bytes.Count(b, []byte("\n")) > 1 { // else it has no event
			err = writeFile(filepath.Join(r.dir, segmentName(n, castExt)), b)
		}
		if err == nil {
			err = os.Remove(part)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Segment reads a segment.
func (r *Recording) Segment(n uint64) ([]byte, error) {
	name := filepath.Join(r.dir, segmentName(n, castExt))
	if info, err := os.Stat(name); err == nil && info.Size() > maxSegment {
		return nil, fmt.Errorf("segment %d has %d bytes: it is none of ours", n, info.Size())
	}
	return os.ReadFile(name) //nolint:gosec // a name in our own folder
}

// Sealing is when a segment was sealed.
func (r *Recording) Sealing(n uint64) (time.Time, error) {
	info, err := os.Stat(filepath.Join(r.dir, segmentName(n, castExt)))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime().UTC(), nil
}

// Statement reads what was signed for a segment.
func (r *Recording) Statement(n uint64) ([]byte, error) {
	return os.ReadFile(filepath.Join(r.dir, segmentName(n, statementExt)))
}

// Sign keeps what was signed for a segment.
func (r *Recording) Sign(n uint64, envelope []byte) error {
	return writeFile(filepath.Join(r.dir, segmentName(n, statementExt)), envelope)
}

// Save keeps how far the agent is.
func (r *Recording) Save() error { return writeJSON(filepath.Join(r.dir, stateName), r.State) }

// Drop removes a segment that the control plane has.
func (r *Recording) Drop(n uint64) error {
	var errs []error
	for _, ext := range []string{castExt, statementExt} {
		if err := os.Remove(filepath.Join(r.dir, segmentName(n, ext))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Remove removes a recording of which nothing is left to send.
func (r *Recording) Remove() error { return os.RemoveAll(r.dir) }

// Watch says whether somebody looks on.
func (r *Recording) Watch(on bool) error {
	name := filepath.Join(r.dir, watchedName)
	if !on {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	return os.WriteFile(name, nil, 0o600)
}
