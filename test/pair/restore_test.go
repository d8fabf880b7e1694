package pair

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"curfew.internal/wire/api"
)

// A dump is restored that is older than a revocation. Neither the servers nor
// the host take it for the truth, and there is a way to go on.
func TestADumpThatIsRestoredBringsNothingBack(t *testing.T) {
	w := newWorld(t, []string{"ana", "eve", "fay"}, []string{"ben", "cid", "gus"})
	ctx := t.Context()
	people := map[string]*human{}
	for _, name := range []string{"ana", "eve", "fay", "ben", "cid", "gus"} {
		people[name] = w.add(t, w.a, name)
	}
	db1 := w.join(t, "db1", w.b)
	grant := w.granted(t, people["ana"], people["ben"])
	until(t, "the host has the grant", func() bool { return db1.holds(t)[grant] })
	dump := filepath.Join(w.dir, "dump")
	must(t, w.db.Dump(ctx, w.name, dump))
	_, err := w.ada.a.Revoke(ctx, &api.RevokeRequest{Grant: grant})
	must(t, err)
	until(t, "the grant is gone", func() bool { return !db1.holds(t)[grant] })
	kept, _ := db1.Versions()
	// What is given out is kept beside the keys first.
	_, err = w.ada.a.GetCheckpoint(ctx, &api.GetCheckpointRequest{})
	must(t, err)
	w.a.kill()
	w.b.kill()
	must(t, w.db.Restore(ctx, w.name, dump))

	// A server that knows better does not start.
	soon, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(soon, program(t, "curfew-server"), "serve", "--config", w.a.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "curfew-server restored --why") {
		t.Fatalf("started on an old state: %v, %s", err, out)
	}
	// Of two that know nothing, the host thinks otherwise, whatever comes.
	for _, of := range []string{"a", "b"} {
		must(t, os.Remove(filepath.Join(w.dir, of, "keys", "log.checkpoint")))
	}
	w.start(t, w.a)
	w.start(t, w.b)
	until(t, "the host is back", db1.client.Connected)
	until(t, "the operator sees it", func() bool {
		all, err := w.ada.a.ListHosts(ctx, &api.ListHostsRequest{})
		must(t, err)
		return strings.Contains(all.Hosts[0].Refused, "which this control plane has not given")
	})
	second := w.granted(t, people["eve"], people["cid"])
	if _, err := w.ada.b.Revoke(ctx, &api.RevokeRequest{Grant: second}); err != nil {
		t.Fatal(err)
	}
	db1.move(w.a)
	until(t, "the host is at the other server", db1.client.Connected)
	if now, _ := db1.Versions(); now != kept || len(db1.holds(t)) > 0 || len(db1.refusals()) > 0 {
		t.Fatalf("the host went from %d to %d, and holds %v; it refused %v", kept, now, db1.holds(t), db1.refusals())
	}
	w.a.kill()
	w.b.kill()
	out, err = exec.CommandContext(ctx, program(t, "curfew-server"), "restored", "--config", w.a.config, "--why", "the disk died").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.start(t, w.a)
	w.start(t, w.b)
	until(t, "the host takes what it is sent", func() bool { now, _ := db1.Versions(); return now > kept })
	if held := db1.holds(t); len(held) > 0 {
		t.Errorf("the host holds %v", held)
	}
	for _, name := range []string{"fay", "gus"} {
		w.signIn(t, w.b, people[name])
	}
	third := w.granted(t, people["fay"], people["gus"])
	until(t, "the host has the new grant", func() bool { return db1.holds(t)[third] })
}

// granted has one ask and the other approve.
func (w *world) granted(t *testing.T, asker, yes *human) string {
	t.Helper()
	r := ask(t, asker.a, asker)
	r, err := yes.b.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: yes.code(t)})
	must(t, err)
	return r.Grant
}
