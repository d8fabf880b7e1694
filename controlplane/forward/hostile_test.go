package forward

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/leodido/go-syslog/v4/rfc5424"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

// Whatever a host tells, there is a message of it: one that there is none of
// would keep all that follow from the receiver.
func TestThereIsAMessageOfWhateverAHostTells(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[\x00-\xff"\]\\]{0,40}`), rapid.Just(strings.Repeat("\\", 5000)), rapid.Just("\xff\xfe\x80"), rapid.Just(strings.Repeat("é", 3000)))
	rapid.Check(t, func(rt *rapid.T) {
		kind := ledger.Kind(rapid.IntRange(0, 300).Draw(rt, "kind"))
		v := roster.Event{
			ID: rapid.Uint64().Draw(rt, "id"), Kind: kind.String(), Host: text.Draw(rt, "host"), Role: text.Draw(rt, "role"),
			Entry: ledger.Entry{
				Kind: kind, At: time.Unix(0, rapid.Int64().Draw(rt, "at")), Grant: text.Draw(rt, "grant"), Person: text.Draw(rt, "person"), Text: text.Draw(rt, "text"),
				Service: text.Draw(rt, "service"), Object: text.Draw(rt, "object"), Session: rapid.Uint64().Draw(rt, "session"), Lost: rapid.Uint64().Draw(rt, "lost"),
				Took: time.Duration(rapid.Int64().Draw(rt, "took")), Process: &ledger.Process{Path: text.Draw(rt, "path"), Argv: []string{text.Draw(rt, "argv")}, Cwd: text.Draw(rt, "cwd"), TTY: text.Draw(rt, "tty"), Comm: text.Draw(rt, "comm")},
			},
		}
		s, err := syslogOf("fleet").message(v)
		if err != nil {
			rt.Fatalf("syslog: %v", err)
		}
		if _, err := rfc5424.NewParser().Parse([]byte(s)); err != nil {
			rt.Fatalf("syslog %q: %v", s, err)
		}
		lines, err := ocsfLines("example", []roster.Event{v})
		if err != nil || strings.Count(string(lines), "\n") != 1 || !json.Valid(lines) {
			rt.Fatalf("OCSF %q: %v", lines, err)
		}
		if _, err := proto.Marshal(logRecord(v, 1)); err != nil {
			rt.Fatalf("OTLP: %v", err)
		}
	})
}

// No command line, and no text of a host that was broken into, makes a message
// that a receiver with a limit of a megabyte refuses for ever.
func TestMessagesAreBounded(t *testing.T) {
	long := strings.Repeat("\x01\"", 1<<19)
	many := make([]string, 1<<19)
	for name, argv := range map[string][]string{"one long argument": {"true", long}, "very many empty ones": many, "the second is long": {long, long, "end"}} {
		v := newShelf(1).events[0]
		e := &v.Entry
		v.Host, v.Role = long, long
		e.Text, e.Object, e.Person, e.Grant, e.Request, e.Step, e.Service, e.Boot, e.Approvers = long, long, long, long, long, long, long, long, many
		p := *e.Process
		p.Argv, p.Path, p.Cwd, p.Comm = argv, long, long, long
		e.Process = &p
		lines, err := ocsfLines("example", []roster.Event{v})
		if err != nil || len(lines) > 1<<20 || !strings.Contains(string(lines), "in the record") {
			t.Errorf("%s: OCSF: %d bytes, %v", name, len(lines), err)
		}
		b, err := proto.Marshal(logRecord(v, 1))
		if err != nil || len(b) > 1<<20 {
			t.Errorf("%s: OTLP: %d bytes, %v", name, len(b), err)
		}
		if len(e.Process.Argv) != len(argv) || len(e.Text) != len(long) {
			t.Errorf("%s: the event itself was cut", name)
		}
	}
	v := newShelf(1).events[0]
	v.Entry.Process.Argv = []string{"echo", "\u009b31m", "two\r\nlines\u2028three"}
	if got := sentence(v); strings.ContainsAny(got, "\u009b\r\n\u2028") {
		t.Errorf("%q", got)
	}
}

// What a person calls her files takes no room from her command line: receivers
// of syslog cut a message at 8 KiB, and do not say so.
func TestSyslogStaysShort(t *testing.T) {
	for _, one := range []string{"a", "\"", "]", "\\", "é", "\x01", "]é"} {
		v := newShelf(1).events[0]
		long := strings.Repeat(one, 4000)
		p := *v.Entry.Process
		p.Path, p.Cwd, p.Argv = long, long, []string{long}
		v.Entry.Object, v.Entry.Process = long, &p
		s, err := syslogOf("fleet").message(v)
		if err != nil || len(s) > 8<<10 || strings.Count(s, "more in the record") != 4 {
			t.Errorf("%q: %d bytes, %v", one, len(s), err)
		}
		if m, err := rfc5424.NewParser().Parse([]byte(s)); err != nil || !m.Valid() {
			t.Errorf("%q: %v", one, err)
		}
	}
}

// A receiver that takes less at once gets less at once, and all of it in order.
func TestASmallReceiver(t *testing.T) {
	for name, c := range map[string]struct{ most, answer int }{
		"seven at a time": {7, http.StatusRequestEntityTooLarge},
		"one at a time":   {1, http.StatusRequestEntityTooLarge},
		"seven, and it says as OpenTelemetry's collector does that more is bad": {7, http.StatusBadRequest},
	} {
		var got []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			if len(lines) > c.most {
				w.WriteHeader(c.answer)
				return
			}
			got = append(got, lines...)
		}))
		newShelf(40).forward(t, Target{Form: FormOCSF, To: server.URL})
		server.Close()
		if len(got) != 40 {
			t.Fatalf("%s: %d came", name, len(got))
		}
		for i, l := range got {
			if !strings.Contains(l, fmt.Sprintf(`"sequence":%d,`, i+1)) {
				t.Fatalf("%s: number %d is %s", name, i+1, l)
			}
		}
	}
}
