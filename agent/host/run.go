package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// searchPath is where programs of the host are looked for, whatever the
// environment says.
var searchPath = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// patience bounds every program that we start.
const patience = 10 * time.Second

// run starts a program of the host with nothing of our environment, and
// returns what it printed.
func (h *Host) run(ctx context.Context, name string, args ...string) (string, error) {
	return h.feed(ctx, "", name, args...)
}

func (h *Host) feed(ctx context.Context, input, name string, args ...string) (string, error) {
	var out bytes.Buffer
	_, err := h.start(ctx, strings.NewReader(input), &out, &out, append([]string{name}, args...))
	if errors.Is(err, errStuck) {
		return "", err
	}
	return out.String(), err
}

// output starts a program as run does, and returns what it printed for others
// to read: its warnings are left out.
func (h *Host) output(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer
	_, err := h.start(ctx, nil, &out, nil, append([]string{name}, args...))
	if errors.Is(err, errStuck) {
		return "", err
	}
	return out.String(), err
}

// start says which process it was, if there was one.
func (h *Host) start(ctx context.Context, input io.Reader, out, warnings io.Writer, words []string) (pid int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	file, err := h.find(words[0])
	if err != nil {
		return 0, err
	}
	if n := h.alone.add(words[0], 0); n >= fewAlone {
		return 0, fmt.Errorf("%s is not started beside %d of it: %w", words[0], n, errStuck)
	}
	cmd := exec.CommandContext(ctx, file, words[1:]...) //nolint:gosec // a program of the host, by a fixed name
	cmd.Env = []string{"PATH=" + strings.Join(searchPath, ":"), "LC_ALL=C"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, out, warnings
	cmd.WaitDelay = time.Second
	if err = cmd.Start(); err == nil {
		pid = cmd.Process.Pid
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }() // as long as it takes, if it cannot be ended
		select {
		case err = <-ended:
		case <-ctx.Done():
			select {
			case err = <-ended:
			case <-time.After(2 * cmd.WaitDelay):
				err = errStuck
				h.alone.add(words[0], 1)
				go func() { // for as long as it lives
					<-ended //nolint:errcheck // nobody waits for it any more
					h.alone.add(words[0], -1)
				}()
			}
		}
	}
	if err != nil {
		return pid, fmt.Errorf("%s: %w", words[0], err)
	}
	return pid, nil
}

// errStuck says that a program waits for what no signal ends, as a file system
// that does not answer. It may still write.
var errStuck = errors.New("it cannot be ended, and is left alone")

// fewAlone is how many of a program are left alone at a time: systemd lets the
// agent have so many processes and threads, and no more.
const fewAlone = 8

// alone counts the programs that are left alone, by their names.
type alone struct {
	mu sync.Mutex
	n  map[string]int
}

func (a *alone) add(name string, more int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n == nil {
		a.n = map[string]int{}
	}
	a.n[name] += more
	return a.n[name]
}

func (h *Host) find(name string) (string, error) {
	dirs := searchPath
	if filepath.IsAbs(name) {
		dirs = []string{"/"}
	}
	for _, dir := range dirs {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not on this host: install it", name)
}
