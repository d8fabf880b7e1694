package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/wire/api"
)

func TestAskingAgain(t *testing.T) {
	was := &api.Request{Role: "ops", Hosts: []string{"db1", "db2"}, Duration: durationpb.New(time.Hour), Reason: "disk full", Ticket: "INC-1"}
	for name, c := range map[string]struct{ said, want requestCmd }{
		"all as it was": {
			requestCmd{}, requestCmd{Role: "ops", On: []string{"db1", "db2"}, For: length(time.Hour), Why: "disk full", Ticket: "INC-1"},
		},
		"what is said anew counts": {
			requestCmd{On: []string{"db3"}, For: length(time.Minute), Why: "again"},
			requestCmd{Role: "ops", On: []string{"db3"}, For: length(time.Minute), Why: "again", Ticket: "INC-1"},
		},
		"labels take the place of hosts": {
			requestCmd{Label: map[string]string{"tier": "db"}},
			requestCmd{Role: "ops", Label: map[string]string{"tier": "db"}, For: length(time.Hour), Why: "disk full", Ticket: "INC-1"},
		},
	} {
		if d := cmp.Diff(c.want, c.said.again(was), cmp.AllowUnexported(moment{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
