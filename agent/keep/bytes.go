package keep

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sector is how much a disk loses at once.
const sector = 4096

// busy reports whether an error is of the moment, and says nothing of a file.
func busy(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// read reads size bytes of a segment. What its disk does not give, for
// whatever reason, is zeros, which no frame is; bad says why.
func (o *Outbox) read(s *segment, at, size int64) (b []byte, bad error) {
	b = make([]byte, size)
	o.mu.Lock()
	out, folder := s.out, o.folder
	o.mu.Unlock()
	if out != nil {
		// Closed meanwhile, for it is the last segment no more: it has a name.
		if bad = fill(b, out, at); !errors.Is(bad, os.ErrClosed) {
			return b, bad
		}
	}
	// Who can put a pipe in the place of a file cannot have us wait for it.
	f, err := folder.OpenFile(s.name(), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return b, err
	}
	return b, errors.Join(fill(b, f, at), f.Close())
}

// fill reads as much as it can.
func fill(b []byte, from io.ReaderAt, at int64) error {
	_, err := from.ReadAt(b, at)
	if err == nil || errors.Is(err, os.ErrClosed) {
		return err
	}
	for i := 0; i < len(b); i += sector {
		part := b[i:min(len(b), i+sector)]
		n, _ := from.ReadAt(part, at+int64(i)) // err says it
		clear(part[n:])
	}
	return err
}
