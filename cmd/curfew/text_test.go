package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/wire/api"
)

func TestARequestTellsWhyMoreApprove(t *testing.T) {
	var b strings.Builder
	r := &api.Request{
		Id: "r-1", Person: "ana", Role: "ops", Hosts: []string{"db1"}, Duration: durationpb.New(1e9), State: "asked", AskedAt: timestamppb.New(noon), LapsesAt: timestamppb.New(noon),
		WaitsFor: "1 of: eve; this step is asked because it is night", Doubts: []*api.Doubt{{If: "x", Because: "it is \x1b[1mnight"}},
	}
	if err := describe(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"more approve because it is ", "needs        1 of: eve; this step is asked because it is night"} {
		if !strings.Contains(b.String(), want) || strings.Contains(b.String(), "\x1b") {
			t.Errorf("%q is not in %q", want, b.String())
		}
	}
}
