package shell

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	lines = []Line{
		{Typed: &Typed{RunAs: "root", Paths: []string{"/usr/bin/id", "/bin/id"}, Args: []string{"-u"}, Directory: "/tmp"}},
		{Typed: &Typed{RunAs: "postgres", Args: []string{"-i"}, Shell: true, Directory: "/"}},
		{Choice: &Choice{Role: "ops", Reason: "disk full", Ticket: "INC-1", Code: "123456", For: 30 * time.Minute}},
		{GiveUp: true},
	}
	replies = []Reply{
		{Host: "db1", Run: &Run{}},
		{Host: "db1", Offers: []Offer{{Role: "ops", Description: "Look", Most: time.Hour, Reason: true, Ticket: true, Approvers: []string{"ben"}, Needed: 1}}},
		{Host: "db1", State: &State{Request: "r-1", WaitsFor: "1 of: ben", Lapses: time.Unix(1e9, 0).UTC(), Approved: []string{"cy"}, Away: true}},
		{Host: "db1", Run: &Run{Grant: "g-1", Role: "ops", Approved: []string{"ben"}, Until: time.Unix(1e9, 0).UTC()}},
		{Host: "db1", No: "denied"},
	}
)

// The golden file is the form as the other end has it, which may be older.
func TestTheFormStays(t *testing.T) {
	var all []string
	for _, l := range lines {
		b, err := Bytes(l)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseLine(b); err != nil || !cmp.Equal(got, l) {
			t.Errorf("%s: %v, %v", b, got, err)
		}
		all = append(all, string(b))
	}
	for _, r := range replies {
		b, err := Bytes(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseReply(b); err != nil || !cmp.Equal(got, r) {
			t.Errorf("%s: %v, %v", b, got, err)
		}
		all = append(all, string(b))
	}
	want, err := os.ReadFile(filepath.Join("testdata", "golden.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(all, "\n") + "\n"; got != string(want) {
		t.Error(cmp.Diff(string(want), got))
	}
}

func TestWhatIsNotOfTheFormIsRefused(t *testing.T) {
	for name, b := range map[string]string{
		"nothing":             ``,
		"no object":           `[]`,
		"an empty one":        `{}`,
		"a field of no one's": `{"give_up":true,"root":true}`,
		"two things at once":  `{"give_up":true,"choice":{"role":"ops","code":"1","for":1}}`,
		"two objects":         `{"give_up":true}{"give_up":true}`,
		"too much":            `{"choice":{"role":"` + strings.Repeat("x", MaxPacket) + `"}}`,
	} {
		if l, err := ParseLine([]byte(b)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
		if r, err := ParseReply([]byte(b)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if _, err := Bytes(Line{Typed: &Typed{Args: []string{strings.Repeat("x", MaxPacket)}}}); !errors.Is(err, ErrForm) {
		t.Errorf("too much is sent: %v", err)
	}
}

// What is taken in is what is written out: nothing that was passed over.
func FuzzParse(f *testing.F) {
	for _, l := range lines {
		b, _ := Bytes(l)
		f.Add(b)
	}
	for _, r := range replies {
		b, _ := Bytes(r)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := ParseLine(b); err == nil {
			again, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ParseLine(again); err != nil && len(again) <= MaxPacket || err == nil && !cmp.Equal(got, l, cmpopts.EquateEmpty()) {
				t.Errorf("%q: %v, %v", b, got, err)
			}
		}
		if r, err := ParseReply(b); err == nil && r.No == "" && r.Run == nil && r.State == nil && len(r.Offers) == 0 {
			t.Errorf("%q says nothing", b)
		}
	})
}
