package forward

import (
	"encoding/json"
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
