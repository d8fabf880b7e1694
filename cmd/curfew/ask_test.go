package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

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

// deskClerk says of what somebody has proved, and takes calls.
type deskClerk struct {
	proof *api.Proof
	needs bool // a proof of its own
	calls []string
}

func (d *deskClerk) Whoami(context.Context, *api.WhoamiRequest) (*api.WhoamiReply, error) {
	return &api.WhoamiReply{Proof: d.proof}, nil
}

func (d *deskClerk) call(code string) (string, error) {
	d.calls = append(d.calls, code)
	if code == "" && d.needs {
		err := connect.NewError(connect.CodeUnauthenticated, errors.New("prove yourself for this"))
		err.Meta().Set("Curfew-Needs", "code")
		return "", err
	}
	return "made", nil
}

// A code is asked for when it is needed, and not when it is not. A server that
// says nothing of a proof, as one from before, is never sent a call without.
func TestACodeIsAskedForWhenItIsNeeded(t *testing.T) {
	for _, c := range []struct {
		name  string
		proof *api.Proof
		needs bool
		env   string
		want  string
	}{
		{"nothing was proved on this session", nil, true, "", "123456"},
		{"what was proved counts", &api.Proof{}, false, "", ""},
		{"it does not count", &api.Proof{}, true, "", " 123456"},
		{"a code is there already", &api.Proof{}, false, "654321", "654321"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(codeName, c.env)
			in, say, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if _, err := say.WriteString("123456\n"); err != nil || say.Close() != nil {
				t.Fatal(err)
			}
			d := &deskClerk{proof: c.proof, needs: c.needs}
			made, err := onProof(t.Context(), &program{in: in, err: io.Discard}, d, d.call)
			if got := strings.Join(d.calls, " "); err != nil || made != "made" || got != c.want {
				t.Errorf("%q, %v, with %q", made, err, got)
			}
		})
	}
}

func TestARequestTellsOnWhichProofItStands(t *testing.T) {
	var b strings.Builder
	asked := timestamppb.New(noon)
	r := &api.Request{
		Id: "r-1", Person: "ana", Role: "ops", Hosts: []string{"db1"}, Duration: durationpb.New(1e9), State: "asked", AskedAt: asked, LapsesAt: asked,
		Proof: &api.Proof{Factor: "passkey", At: timestamppb.New(noon.Add(-4 * time.Minute)), For: "request"},
	}
	if err := describe(&b, r); err != nil || !strings.Contains(b.String(), "none of its own: proved with passkey 4m before, for an earlier request") {
		t.Errorf("%s, %v", b.String(), err)
	}
	b.Reset()
	r.Proof = nil
	if err := describe(&b, r); err != nil || strings.Contains(b.String(), "none of its own") {
		t.Errorf("%s, %v", b.String(), err)
	}
}

func TestRolesTellWhatTheyTake(t *testing.T) {
	for want, r := range map[string]*api.Role{
		"none":          {},
		"2 of ben,cleo": {ApprovalsNeeded: 2, Approvers: []string{"ben", "cleo"}},
		"1 of ben; 1 of dora, if it is night, if in office hours, on a proof of the last 10m, too, for you from 2026-03-01 on: --at": {
			ApprovalsNeeded: 1, Approvers: []string{"ben"}, Doubtful: []string{"1 of dora, if it is night"}, Conditions: []string{"in office hours"},
			Freshness: durationpb.New(10 * time.Minute), EligibleFrom: timestamppb.New(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)),
		},
	} {
		if got := approvalOf(r); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

// A table and a line name few of many: --output json has all.
func TestFewOfManyAreNamed(t *testing.T) {
	var all []string
	for i := range 5000 {
		all = append(all, fmt.Sprintf("n%04d", i))
	}
	if got, want := approvalOf(&api.Role{ApprovalsNeeded: 1, Approvers: all}), "1 of n0000,n0001,n0002,n0003,n0004,n0005,n0006,n0007 and 4992 more"; got != want {
		t.Errorf("%.300s", got)
	}
	if got, want := awaited(&api.Request{Approvers: all[:10]}), "n0000 or n0001 or n0002 or n0003 or n0004 or n0005 or n0006 or n0007 and 2 more"; got != want {
		t.Errorf("%.300s", got)
	}
	if got, want := awaited(&api.Request{Approvers: all[:9]}), "n0000 or n0001 or n0002 or n0003 or n0004 or n0005 or n0006 or n0007 or n0008"; got != want {
		t.Errorf("%.300s", got)
	}
}
