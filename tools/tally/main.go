// Tally reads what "go test -json" prints, shows what a person wants to see of
// it, and closes with one line of counts. It refuses a run that skipped a
// test where $CI is set, and a run without any test.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	into := flag.String("o", "", "also write the closing line to this `file`")
	flag.Parse()
	t := tally{out: os.Stdout, held: map[test][]string{}, failedIn: map[string]bool{}}
	if err := t.run(os.Stdin, *into, os.Getenv("CI") != ""); err != nil {
		fmt.Fprintln(os.Stderr, "tally: "+err.Error())
		os.Exit(1)
	}
}

// event is a line of "go doc test2json".
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

type test struct{ pkg, name string }

type tally struct {
	out                     io.Writer
	held                    map[test][]string // output of tests that are not over
	passed, failed, skipped int               // top-level tests
	badPackages             int               // failed without a failed test: they did not build, or died
	failedIn                map[string]bool   // packages with a failed test
	skips                   []string
}

func (t *tally) run(in io.Reader, into string, strict bool) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(t.out, lines.Text()) // not from a test: the compiler's words
			continue
		}
		t.see(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	for _, s := range t.skips {
		fmt.Fprintln(t.out, "skipped: "+s)
	}
	// A package that did not build, or died outside a test, is one failure.
	line := fmt.Sprintf("%d passed, %d failed", t.passed, t.failed+t.badPackages)
	if t.skipped > 0 {
		line += fmt.Sprintf(", %d skipped", t.skipped)
	}
	fmt.Fprintln(t.out, line)
	if into != "" {
		if err := os.WriteFile(into, []byte(line+"\n"), 0o644); err != nil { //nolint:gosec // meant to be read by all
			return fmt.Errorf("write the counts: %w", err)
		}
	}
	switch {
	case t.failed+t.badPackages > 0:
		return errors.New("not all passed")
	case t.passed == 0:
		return errors.New("no test ran")
	case strict && t.skipped > 0:
		return errors.New("a test was skipped, and $CI is set")
	}
	return nil
}

func (t *tally) see(e event) {
	at := test{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		if e.Action == "build-output" {
			fmt.Fprint(t.out, e.Output)
			return
		}
		t.held[at] = append(t.held[at], e.Output)
	case "pass", "fail", "skip":
		t.end(e, at)
		delete(t.held, at)
	}
}

func (t *tally) end(e event, at test) {
	top := e.Test != "" && !strings.Contains(e.Test, "/")
	if e.Action == "skip" && e.Test != "" {
		t.skipped++
		t.skips = append(t.skips, e.Package+" "+e.Test+": "+reason(t.held[at]))
	}
	if e.Action == "fail" {
		fmt.Fprint(t.out, strings.Join(t.held[at], ""))
	}
	switch {
	case e.Test == "":
		t.endPackage(e)
	case top && e.Action == "pass":
		t.passed++
	case top && e.Action == "fail":
		t.failed++
		t.failedIn[e.Package] = true
	}
}

func (t *tally) endPackage(e event) {
	if e.Action == "fail" {
		// Tests that were cut off never ended: their words tell why.
		cut := false
		for at, lines := range t.held {
			if at.pkg == e.Package && at.name != "" {
				cut = true
				fmt.Fprint(t.out, strings.Join(lines, ""))
				delete(t.held, at)
			}
		}
		if cut || !t.failedIn[e.Package] {
			t.badPackages++
		}
	}
	if e.Action != "skip" { // a package without tests
		took := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
		fmt.Fprintf(t.out, "%s %s %v\n", e.Action, e.Package, took)
	}
}

// reason is the last line that a skipped test wrote of itself.
func reason(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if s := strings.TrimSpace(lines[i]); s != "" && !strings.HasPrefix(s, "--- ") && !strings.HasPrefix(s, "===") {
			return s
		}
	}
	return "no reason given"
}
