package pair

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

// watcher is a witness: a program of its own, with its own disk.
type watcher struct {
	dir, key, address string
	cmd               *exec.Cmd
}

func newWatcher(t *testing.T, name string) *watcher {
	t.Helper()
	v := &watcher{dir: filepath.Join(t.TempDir(), "witness"), address: freePort(t)}
	out, err := exec.CommandContext(t.Context(), program(t, "curfew"), "witness", "init", name, "--dir", v.dir).Output()
	must(t, err)
	v.key = strings.TrimSpace(string(out))
	t.Cleanup(v.kill)
	return v
}

func (v *watcher) start(t *testing.T, log string) {
	t.Helper()
	v.cmd = exec.Command(program(t, "curfew"), "witness", "run", "--dir", v.dir, "--log", log, "--listen", v.address)
	must(t, v.cmd.Start())
	until(t, "the witness answers", func() bool {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", v.address)
		return err == nil && c.Close() == nil
	})
}

func (v *watcher) kill() {
	if v.cmd != nil {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait() // killed: that is what we wanted
		v.cmd = nil
	}
}

// watched has both servers ask the witnesses, and show the log.
func (w *world) watched(t *testing.T, by ...*watcher) {
	t.Helper()
	text := "log_tiles: true\nwitnesses:\n"
	for _, v := range by {
		text += fmt.Sprintf("  - {key: %q, url: %q}\n", v.key, "http://"+v.address)
	}
	for _, p := range []*plane{w.a, w.b} {
		p.kill()
		b, err := os.ReadFile(p.config)
		must(t, err)
		must(t, os.WriteFile(p.config, append(b, text...), 0o600))
		w.start(t, p)
	}
}

// seen is what the server knows of the witnesses, once it has asked them.
func (w *world) seen(t *testing.T) []*api.Witness {
	t.Helper()
	r, err := w.ada.a.GetCheckpoint(t.Context(), &api.GetCheckpointRequest{Cosigned: true})
	must(t, err)
	return r.Witnesses
}

// verify is what curfew verify says of a bundle.
func verify(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, "curfew"), append([]string{"verify"}, args...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Witnesses cosign what two servers of one fleet do, and see a database that was
// set back together with what the servers keep beside it.
func TestWitnessesSeeWhatTheServersCannot(t *testing.T) {
	w := newWorld(t, []string{"ana"}, []string{"ben"})
	out, err := exec.CommandContext(t.Context(), program(t, "curfew-server"), "log-key", "--config", w.a.config).Output()
	must(t, err)
	log := strings.TrimSpace(string(out))
	one, two, never := newWatcher(t, "witness.example/one"), newWatcher(t, "witness.example/two"), newWatcher(t, "witness.example/never")
	one.start(t, log)
	two.start(t, log)
	w.watched(t, one, two)
	w.add(t, w.a, "ana")
	dump := filepath.Join(w.dir, "dump")
	must(t, w.db.Dump(t.Context(), w.name, dump))
	w.add(t, w.b, "ben")
	until(t, "both cosigned what both servers did", func() bool {
		all := w.seen(t)
		return len(all) == 2 && all[0].Size == all[1].Size && all[0].Since == nil && all[1].Since == nil
	})
	if s := w.run(t, w.ada, "audit", "witnesses"); strings.Count(s, "cosigns") != 2 || !strings.Contains(s, "witness.example/two") {
		t.Errorf("%s", s)
	}
	w.checked(t, log, one, two, never)
	w.tiled(t, log)

	two.kill()
	_, err = w.ada.a.InvitePerson(t.Context(), &api.InvitePersonRequest{Name: "ben"})
	must(t, err)
	all := w.seen(t)
	if all[0].Since != nil || all[1].Since == nil || all[1].Why == "" || all[1].Refuses || all[0].Size <= all[1].Size {
		t.Errorf("one that is down: %v", all)
	}

	w.a.kill()
	w.b.kill()
	must(t, w.db.Restore(t.Context(), w.name, dump))
	for _, of := range []string{"a", "b"} {
		must(t, os.Remove(filepath.Join(w.dir, of, "keys", "log.checkpoint"))) // as if it had been set back too
	}
	w.start(t, w.a)
	w.start(t, w.b)
	two.start(t, log)
	until(t, "both refuse the log that was set back", func() bool {
		all := w.seen(t)
		return all[0].Refuses && all[1].Refuses
	})
	told, err := w.ada.a.SearchEvents(t.Context(), &api.SearchEventsRequest{Kind: "witness", Outcome: "failed"})
	if err != nil || len(told.Events) != 2 || !strings.Contains(told.Events[0].Text, "the log is not what it cosigned") {
		t.Errorf("in the record: %v, %v", told, err)
	}
	logged := ""
	for _, p := range []*plane{w.a, w.b} {
		b, err := os.ReadFile(p.log.Name())
		must(t, err)
		logged += string(b)
	}
	if !strings.Contains(logged, "alert: a witness does not cosign the log") {
		t.Error("the operator is not told")
	}
}

// checked has an auditor check an export, with whom she trusts.
func (w *world) checked(t *testing.T, log string, one, two, never *watcher) {
	t.Helper()
	bundle := filepath.Join(w.dir, "bundle")
	w.run(t, w.ada, "audit", "export", "--all", bundle)
	for _, c := range []struct {
		name string
		args []string
		good bool
		says []string
	}{
		{"both cosigned it", []string{"--witness", one.key, "--witness", two.key}, true, []string{"\nCosigned by witness.example/one at ", "\nCosigned by witness.example/two at "}},
		{"two of three", []string{"--witness", one.key, "--witness", never.key, "--witness", two.key, "--quorum", "2"}, true, []string{"\nNot cosigned by witness.example/never."}},
		{"one that did not", []string{"--witness", one.key, "--witness", never.key}, false, []string{"1 of the witnesses that you named cosigned the checkpoint, and you ask for 2"}},
		{"one that is named twice counts once", []string{"--witness", one.key, "--witness", one.key}, false, []string{"1 of the witnesses"}},
	} {
		said, err := verify(t, append([]string{bundle, "--key", log}, c.args...)...)
		if (err == nil) != c.good {
			t.Errorf("%s: %v\n%s", c.name, err, said)
		}
		for _, s := range c.says {
			if !strings.Contains(said, s) {
				t.Errorf("%s: it does not say %q:\n%s", c.name, s, said)
			}
		}
	}
}

// reader reads a log's tiles from a server, as any auditor may.
type reader struct {
	ctx    context.Context
	client *http.Client
	url    string
}

func (reader) Height() int                     { return 8 }
func (reader) SaveTiles([]tlog.Tile, [][]byte) {}
func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		b, err := r.get("tile/" + strings.TrimPrefix(t.Path(), "tile/8/"))
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

func (r reader) get(path string) ([]byte, error) {
	q, err := http.NewRequestWithContext(r.ctx, http.MethodGet, r.url+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := r.client.Do(q)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", path, res.StatusCode, b)
	}
	return b, err
}

// tiled checks, with nothing but what is shown to everybody and the log's key,
// that the log grew from one of its entries to all of them.
func (w *world) tiled(t *testing.T, log string) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // what counts is signed
	t.Cleanup(transport.CloseIdleConnections)
	r := reader{t.Context(), &http.Client{Transport: transport}, "https://" + w.a.people + "/log/"}
	note, err := r.get("checkpoint")
	must(t, err)
	key, err := ledger.ParseKey(log)
	must(t, err)
	now, err := ledger.OpenCheckpoint(note, key)
	must(t, err)
	if n := strings.Count(string(note), "\u2014"); n != 3 {
		t.Errorf("%d signatures: %s", n, note)
	}
	tree := tlog.TileHashReader(tlog.Tree{N: int64(now.Size), Hash: now.Root}, r)
	first, err := tlog.TreeHash(1, tree)
	must(t, err)
	proof, err := tlog.ProveTree(int64(now.Size), 1, tree)
	must(t, err)
	must(t, ledger.Grew(ledger.Tree{Size: 1, Root: first}, now.Tree, proof))
	if _, err := r.get("tile/entries/000.p/1"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("entries are shown to everybody: %v", err)
	}
}
