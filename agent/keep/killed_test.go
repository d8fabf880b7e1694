package keep

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"curfew.internal/clock"
)

// TestKilled runs this test's program again, as an agent that appends and
// says what is durable, and kills it at a random moment.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("CURFEW_TEST_APPEND"); dir != "" {
		appendForever(t, dir)
	}
	dir := t.TempDir()
	said := uint64(0)
	for range 8 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "CURFEW_TEST_APPEND="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + rand.IntN(60) {
			if lines.Scan() {
				said = number(t, lines.Text(), said)
			}
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			said = number(t, lines.Text(), said)
		}
		_ = cmd.Wait() // it was killed
		o := openBox(t, Config{Dir: dir, Clock: clock.System{}})
		var seen uint64
		for _, e := range all(t, o, 0) {
			if e.Session != seen+1 {
				t.Fatalf("entry %d after %d", e.Session, seen)
			}
			seen = e.Session
		}
		if seen < said {
			t.Fatalf("%d were durable, %d are there", said, seen)
		}
	}
}

// number reads a whole line; the kill may have torn the last one.
func number(t *testing.T, line string, last uint64) uint64 {
	t.Helper()
	digits, whole := strings.CutSuffix(line, ".")
	n, err := strconv.ParseUint(digits, 10, 64)
	if !whole || err != nil {
		return last
	}
	return max(n, last)
}

func appendForever(t *testing.T, dir string) {
	t.Helper()
	k, err := Open(Config{Dir: dir, Clock: clock.System{}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = k.Run(context.Background()) }()
	for n := uint64(len(all(t, k.outbox, 0))); ; n += 2 {
		if err := k.Append(entry(n+1), entry(n+2)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(os.Stdout, "%d.\n", n+2)
	}
}
