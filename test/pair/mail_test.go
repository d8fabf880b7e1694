package pair

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"curfew.internal/test/postoffice"
	"curfew.internal/wire/api"
)

// Two servers mail what concerns people once between them: by the address that an
// admin's command line set, while one of them is killed, and though one address is
// refused.
func TestMailsAreToldOnceByTwo(t *testing.T) {
	w := newWorld(t, []string{"ana"}, []string{"ben", "cy"})
	o := postoffice.New(t)
	to := filepath.Join(w.dir, "relay")
	must(t, os.WriteFile(to, []byte("smtp://"+o.Address+"/?from=curfew@example.org&tls=off\n"), 0o600))
	for _, p := range []*plane{w.a, w.b} {
		p.kill()
		config, err := os.ReadFile(p.config)
		must(t, err)
		must(t, os.WriteFile(p.config, append(config, "\nnotify: [{name: people, form: mail, to_file: "+to+"}]\n"...), 0o600))
		w.start(t, p)
	}
	people := map[string]*human{}
	for _, name := range []string{"ana", "ben", "cy"} {
		people[name] = w.add(t, w.a, name)
		if out := w.run(t, w.ada, "people", "email", name, name+"@example.com"); out != name+" is told at "+name+"@example.com.\n" {
			t.Errorf("%s", out)
		}
	}
	if out := w.run(t, people["ana"], "whoami"); !strings.Contains(out, ", told at ana@example.com\n") {
		t.Errorf("%s", out)
	}
	if out := w.run(t, w.ada, "people"); !strings.Contains(out, "ana@example.com") {
		t.Errorf("%s", out)
	}
	o.Says("RCPT cy@example.com", "550 5.1.1 no such user")
	w.join(t, "db2", w.a)
	ask := func(code string) *api.CreateRequestRequest {
		q := question(code)
		q.Hosts = []string{"db2"}
		return q
	}
	var got []string
	body, seen := "", map[string]bool{}
	told := func(want ...string) {
		t.Helper()
		until(t, "told is "+strings.Join(want, ", "), func() bool {
			for _, l := range o.Took() {
				id := l.Header(t, "Message-ID")
				if seen[id] {
					continue // taken just before its server was killed
				}
				seen[id] = true
				got, body = append(got, l.To+" "+l.Header(t, "Subject")), l.Body(t)
			}
			return len(got) >= len(want)
		})
		for i := range want {
			if len(got) != len(want) || !strings.HasPrefix(got[i], want[i]) {
				t.Fatalf("told %q and not %q", got, want)
			}
		}
		got = nil
	}
	r, err := people["ana"].b.CreateRequest(t.Context(), ask(people["ana"].code(t)))
	must(t, err)
	told("ben@example.com Curfew: ana asks for db on db2 for 1h0m0s: the first")
	_, err = people["cy"].b.Comment(t.Context(), &api.CommentRequest{Id: r.Id, Text: "which table?"})
	must(t, err)
	told("ana@example.com Curfew: cy says of ana's request for db on db2: which table?")
	w.a.kill()
	_, err = people["ben"].b.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: people["ben"].code(t)})
	must(t, err)
	told("ana@example.com Curfew: ana's request for db on db2 was approved by ben")
	w.start(t, w.a)
	w.b.kill()
	out := w.run(t, w.ada, "people", "email", "ben")
	if out != "ben is told nothing by mail.\n" {
		t.Errorf("%s", out)
	}
	// The first is decided, and its mail to cy was not taken: it is told no more.
	o.Says("RCPT cy@example.com", "")
	second, err := people["ana"].a.CreateRequest(t.Context(), ask("")) // on her earlier proof
	must(t, err)
	told("cy@example.com Curfew: ana asks for db on db2")
	if !strings.Contains(body, "request "+second.Id+"\n") {
		t.Errorf("%s", body)
	}
}
