package fleet

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/uplink"
)

// A keeper keeps reports.
type keeper struct {
	Store
	kept []roster.Report
}

func (k *keeper) Applied(_ context.Context, _ string, r roster.Report, _ time.Time) error {
	k.kept = append(k.kept, r)
	return nil
}

func TestAReportIsKeptWhenItSaysSomething(t *testing.T) {
	c, k, log := &fixed{start}, &keeper{}, &bytes.Buffer{}
	st := &stream{
		Server: New(Config{Store: k, Clock: c, Log: slog.New(slog.NewTextHandler(log, nil))}),
		host:   roster.Host{Name: "db1", Access: "enforce"}, asks: make(chan uint64, 1),
	}
	say := func(after time.Duration, alter func(*uplink.Applied)) {
		t.Helper()
		c.now = c.now.Add(after)
		a := &uplink.Applied{Revision: 1, Settled: true, Access: "enforce", Doctor: &uplink.Examination{
			At: c.now.UnixNano(), Findings: []*uplink.Finding{{Check: "disk", Says: "full"}},
		}}
		alter(a)
		if err := st.applied(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	same := func(*uplink.Applied) {}
	for _, step := range []struct {
		name  string
		after time.Duration
		alter func(*uplink.Applied)
		kept  int
	}{
		{"the first", 0, same, 1},
		{"the doctor looked again, and found the same", 10 * time.Minute, same, 1},
		{"it asks for the time", time.Second, func(a *uplink.Applied) { a.Ask = 7 }, 1},
		{"another set", time.Second, func(a *uplink.Applied) { a.Revision = 2 }, 2},
		{"another finding", time.Second, func(a *uplink.Applied) { a.Revision, a.Doctor.Findings = 2, nil }, 3},
		{"the first again", time.Second, same, 4},
		{"once an hour, whatever it says", time.Hour, same, 5},
	} {
		if say(step.after, step.alter); len(k.kept) != step.kept {
			t.Errorf("%s: %d kept", step.name, len(k.kept))
		}
	}
	if log.Len() > 0 {
		t.Errorf("an alert for nothing: %s", log)
	}
	say(time.Second, func(a *uplink.Applied) { a.Access = "observe" })
	if s := log.String(); !strings.Contains(s, "alert: host deals otherwise") || !strings.Contains(s, "before=enforce now=observe") {
		t.Errorf("no alert: %s", s)
	}
}

func TestWhatAHostReportsIsBounded(t *testing.T) {
	long := strings.Repeat("\u00e9", 5000)
	a := &uplink.Applied{Doctor: &uplink.Examination{At: start.Add(time.Hour).UnixNano()}}
	for range 1000 {
		a.Unwired = append(a.Unwired, long)
		a.Doctor.Findings = append(a.Doctor.Findings, &uplink.Finding{Check: long, Says: long, Mend: long})
	}
	r := reported(a, start)
	size := 0
	for _, f := range r.Findings {
		size += len(f.Check) + len(f.Says) + len(f.Mend)
	}
	for _, u := range r.Unwired {
		size += len(u)
	}
	if size > 64<<10 || len(r.Findings) == 0 || len(r.Unwired) == 0 {
		t.Errorf("%d bytes in %d findings and %d lines", size, len(r.Findings), len(r.Unwired))
	}
	if !r.Examined.Equal(start) {
		t.Errorf("it looked in the future: %v", r.Examined)
	}
}

func TestWaitsOfOneHostAreBounded(t *testing.T) {
	var w waits
	var leave func()
	for n := range waitsOfOne + 1 {
		l, ok := w.enter("db1")
		if ok != (n < waitsOfOne) {
			t.Fatalf("wait %d: %v", n, ok)
		}
		if ok {
			leave = l
		}
	}
	if _, ok := w.enter("db2"); !ok {
		t.Error("another host pays for it")
	}
	leave()
	if _, ok := w.enter("db1"); !ok {
		t.Error("a place is not given back")
	}
}
