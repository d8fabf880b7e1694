package pair

import (
	"crypto/rand"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

// What somebody proved at one server counts at the other, on the same session
// alone: her command line asks for no code then, and for one otherwise.
func TestAProofCountsAtTheOtherServer(t *testing.T) {
	w := newWorld(t, []string{"ana"}, []string{"ben"})
	ana := w.add(t, w.b, "ana")
	w.join(t, "db1", w.a)
	again := []string{"request", "db", "--on", "db1", "--for", "1h", "--why", "the other one, too", "--no-wait", "--output", "json"}
	// To begin with, there is a session and nothing was asked for.
	w.wantsCode(t, ana, again)
	first, err := ana.b.CreateRequest(t.Context(), question(ana.code(t)))
	must(t, err)
	out := w.run(t, ana, again...)
	said, rest, _ := strings.Cut(out, "\n")
	if !strings.HasPrefix(said, "No code was needed: you proved yourself with totp ") || !strings.HasSuffix(said, " before, for an earlier request.") {
		t.Errorf("%s", said)
	}
	var r struct {
		ID    string `json:"id"`
		Proof struct{ For string }
	}
	made := rest[strings.Index(rest, "{"):]
	if err := json.Unmarshal([]byte(made), &r); err != nil || r.ID == first.Id || r.Proof.For != "request" {
		t.Errorf("%v\n%s", err, made)
	}
	w.atOnce(t, ana, roster.ProofUses-1)
	w.signIn(t, w.a, ana)
	w.wantsCode(t, ana, again)
}

// atOnce asks on one proof at both servers, more often than it counts, and wants
// just so many requests to come of it.
func (w *world) atOnce(t *testing.T, h *human, want int32) {
	t.Helper()
	var made atomic.Int32
	var all sync.WaitGroup
	for i := range 2 * roster.ProofUses {
		all.Go(func() {
			_, err := []apiconnect.CurfewClient{h.a, h.b}[i%2].CreateRequest(t.Context(), question(""))
			if err == nil {
				made.Add(1)
			} else if connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Error(err)
			}
		})
	}
	if all.Wait(); made.Load() != want {
		t.Errorf("%d requests stand on what was left of the proof, not %d", made.Load(), want)
	}
}

func question(code string) *api.CreateRequestRequest {
	return &api.CreateRequestRequest{Role: "db", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour), Reason: "the first", Code: code, Key: rand.Text()}
}

// wantsCode runs curfew where nobody types a code.
func (w *world) wantsCode(t *testing.T, h *human, args []string) {
	t.Helper()
	w.run(t, h, "whoami") // which leaves the session there
	home := filepath.Join(w.dir, "home-"+h.name)
	cmd := exec.CommandContext(t.Context(), program(t, "curfew"), args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "CURFEW_HOME=" + home, "HOME=" + home}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the code of your second factor is needed") {
		t.Errorf("%v\n%s", err, out)
	}
}
