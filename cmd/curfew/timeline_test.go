package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/clock"
	"curfew.internal/wire/api"
)

func TestATimelineSaysOnceWhatHappensAgain(t *testing.T) {
	noon := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	var all []*api.Moment
	for i, text := range []string{"looks a name up", "looks a name up", "looks a name up", "starts", "looks a name up", "goes", "goes"} {
		all = append(all, &api.Moment{At: timestamppb.New(noon.Add(time.Duration(i) * time.Second)), What: "connect", Host: "db1", Person: "ana", Text: text})
	}
	all = append(all, &api.Moment{At: timestamppb.New(noon), What: "exit", Host: "db1", Person: "ana", Text: "ended"})
	for _, object := range []string{"unix:/run/systemd/journal/dev-log", "unix:/run/docker.sock"} {
		all = append(all, &api.Moment{At: timestamppb.New(noon), What: "connect", Host: "db1", Person: "ana", Event: &api.Event{Object: object, Text: object}})
	}
	for _, c := range []struct {
		name  string
		whole bool
		want  string
	}{
		{"on a page", false, "12:00:00 looks a name up  (3 times)|12:00:03 starts|12:00:04 looks a name up|12:00:05 goes  (2 times)|12:00:00 unix:/run/docker.sock||2 exits, changes of uid and connections to the host's own services are left out: --all|"},
		{"all of it", true, "12:00:00 looks a name up|12:00:01 looks a name up|12:00:02 looks a name up|12:00:03 starts|12:00:04 looks a name up|12:00:05 goes|12:00:06 goes|12:00:00 ended|12:00:00 unix:/run/systemd/journal/dev-log|12:00:00 unix:/run/docker.sock|"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := moments(&b, all, c.whole); err != nil {
				t.Fatal(err)
			}
			got := b.String()
			for old, short := range map[string]string{".000  connect    db1      ana     ": "", ".000  exit       db1      ana     ": "", "\n": "|"} {
				got = strings.ReplaceAll(got, old, short)
			}
			if got != c.want {
				t.Errorf("%s", got)
			}
		})
	}
}

// A time of day says nothing of what was days ago.
func TestADayIsTold(t *testing.T) {
	noon := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	var all []*api.Moment
	for _, later := range []time.Duration{0, time.Hour, 24 * time.Hour, 25 * time.Hour, 96 * time.Hour} {
		all = append(all, &api.Moment{At: timestamppb.New(noon.Add(later)), What: "connect", Host: "db1", Person: "ana", Text: "the same"})
	}
	var b strings.Builder
	r := &api.TimelineReply{Request: &api.Request{Grant: "g-a", Person: "ana", Role: "ops", Hosts: []string{"db1"}, AskedAt: timestamppb.New(noon)}, Moments: all}
	if err := timeline(&b, r, false); err != nil {
		t.Fatal(err)
	}
	want := `g-a: ana as ops on db1 for 0s, "", asked on 2027-01-31

12:00:00.000  connect    db1      ana      the same  (2 times)
--- 2027-02-01
12:00:00.000  connect    db1      ana      the same  (2 times)
--- 2027-02-04
12:00:00.000  connect    db1      ana      the same
`
	if b.String() != want {
		t.Errorf("%s", &b)
	}
	var out strings.Builder
	p := &program{globals: globals{Output: "text"}, out: &out, clock: clock.System{}}
	to := p.events(false)
	for _, at := range []time.Time{noon, noon.Add(time.Hour), noon.Add(24 * time.Hour), time.Now()} {
		if err := to.print(&api.Event{At: timestamppb.New(at), Kind: "login", Host: "db1"}); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 8 || lines[0] != "--- 2027-01-31" || !strings.HasPrefix(lines[1], "12:00:00.000 db1") || !strings.HasPrefix(lines[2], "13:00") || lines[3] != "--- 2027-02-01" {
		t.Errorf("%s", &out)
	}
}
