package main

import (
	"strings"
	"testing"
	"time"
)

func TestWhen(t *testing.T) {
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"90m":                  now.Add(-90 * time.Minute),
		"7d":                   now.Add(-7 * 24 * time.Hour),
		"90d":                  now.AddDate(0, 0, -90), // a grant does not last that long
		"2027-01-31T11:00:00Z": now.Add(-time.Hour),
	} {
		var w when
		if err := w.UnmarshalText([]byte(text)); err != nil || !w.before(now).AsTime().Equal(want) {
			t.Errorf("%s: %v, %v", text, w, err)
		}
	}
	if (when{}).before(now) != nil {
		t.Error("no flag is an instant")
	}
	for _, text := range []string{"", "-1h", "yesterday", "14:00", "2027-01-31", "40000d", "d", "+3d"} {
		var w when
		if err := w.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "write") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.FixedZone("", 3600))
	for text, want := range map[string]time.Time{
		"6h":                        now.Add(6 * time.Hour),
		"22:30":                     time.Date(2027, 1, 31, 22, 30, 0, 0, time.UTC),
		"11:01":                     time.Date(2027, 1, 31, 11, 1, 0, 0, time.UTC),
		"11:00":                     time.Date(2027, 2, 1, 11, 0, 0, 0, time.UTC),
		"00:00":                     time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC),
		"2027-02-03T04:05:06+02:00": time.Date(2027, 2, 3, 2, 5, 6, 0, time.UTC),
	} {
		var m moment
		if err := m.UnmarshalText([]byte(text)); err != nil || !m.after(now).AsTime().Equal(want) {
			t.Errorf("%s: %v, %v", text, m.after(now), err)
		}
	}
	if (moment{}).after(now) != nil {
		t.Error("no flag is an instant")
	}
	for _, text := range []string{"", "-1h", "tomorrow", "25:00", "2027-01-31"} {
		var m moment
		if err := m.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "write") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSignedValuesStayWithTheirFlags(t *testing.T) {
	for line, want := range map[string]string{
		"request r --on db1 --for -1h --why x": "request r --on db1 --for=-1h --why x",
		"ssh db1 -4":                           "ssh db1 -4",
		"ssh -- -1":                            "ssh -- -1",
		"audit search --since -3m -o json":     "audit search --since=-3m -o json",
	} {
		if got := strings.Join(signed(strings.Fields(line)), " "); got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
}

func TestTimelineIsAPage(t *testing.T) {
	long := strings.Repeat("é", 50_000)
	if got := short(long, false); len(got) > page+60 || !strings.Contains(got, "bytes more") {
		t.Errorf("%d bytes", len(got))
	}
	if short(long, true) != long || short("ls", false) != "ls" {
		t.Error("cut for no reason")
	}
}
