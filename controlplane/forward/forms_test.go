package forward

import (
	"strings"
	"testing"

	"github.com/leodido/go-syslog/v4/rfc5424"
	"google.golang.org/protobuf/proto"

	"curfew.internal/controlplane/roster"
	"curfew.internal/ledger"
)

func TestHostileText(t *testing.T) {
	v := newShelf(1).events[0]
	v.Entry.Text = "two\nlines \x1b[31m]\""
	v.Entry.Process.Cwd = `/a"b]c\d` + "\n<1>1 - - - - - - forged"
	v.Entry.Process.Path = "/\xff" + strings.Repeat("x", 100_000)
	v.Entry.Process.Argv = []string{"sh", "-c", "true\n<110>1 - x y - - - forged", strings.Repeat("ä", 50_000)}
	s, err := syslogOf("example").message(v)
	if err != nil {
		t.Fatal(err)
	}
	if len(s) > 8<<10 || strings.ContainsAny(s, "\n\x1b") {
		t.Errorf("%d bytes: %q", len(s), s)
	}
	parsed, err := rfc5424.NewParser().Parse([]byte(s))
	if err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	m := parsed.(*rfc5424.SyslogMessage)
	data := (*m.StructuredData)[element]
	if data["cwd"] != `/a"b]c\d <1>1 - - - - - - forged` || data["entry"] != "1" || data["approvers"] != "ben" || !strings.Contains(*m.Message, "bytes more in the record") {
		t.Errorf("%v, %s", data, *m.Message)
	}
	if *m.Priority != 13*8+6 || *m.Hostname != "db1" || *m.MsgID != "exec" || !m.Timestamp.Equal(noon) {
		t.Errorf("%s", s)
	}
	lines, err := ocsfLines("example", []roster.Event{v})
	if err != nil || strings.Count(string(lines), "\n") != 1 {
		t.Errorf("%s, %v", lines, err)
	}
	if _, err := proto.Marshal(logRecord(v, 1)); err != nil {
		t.Error(err)
	}
}

func syslogOf(fleet string) syslogSink { return syslogSink{fleet: fleet} }

func TestKindsHaveClasses(t *testing.T) {
	for k := ledger.Exec; k <= ledger.Decision; k++ {
		v := roster.Event{ID: 1, Kind: k.String(), Host: "db1", Role: "r", Entry: ledger.Entry{Kind: k, At: noon, Person: "ana", Text: "x", Step: "approved", Request: "r-a"}}
		o := ocsf("example", v)
		uid, activity := o["class_uid"].(int), o["activity_id"].(int)
		if o["type_uid"] != uid*100+activity || o["category_uid"] != uid/1000 || o["severity_id"] == 0 {
			t.Errorf("%s: %v", k, o)
		}
		for class, needs := range map[int][]string{
			1007: {"actor", "device", "process"}, 3002: {"user"}, 3004: {"entity"}, 3005: {"user", "privileges"},
		} {
			for _, key := range needs {
				if uid == class && o[key] == nil {
					t.Errorf("%s has no %s, which the schema requires", k, key)
				}
			}
		}
		if s, err := syslogOf("example").message(v); err != nil || !strings.Contains(s, k.String()) {
			t.Errorf("%s: %s, %v", k, s, err)
		}
	}
}

// What a session opened, or called, is told in each form.
func TestObjects(t *testing.T) {
	v := roster.Event{ID: 1, Kind: "open", Host: "db1", Entry: ledger.Entry{Kind: ledger.Open, At: noon, Object: "/etc/shadow", Process: &ledger.Process{PID: 7, Comm: "vi"}}}
	s, err := syslogOf("example").message(v)
	if err != nil || !strings.Contains(s, `object="/etc/shadow"`) || !strings.Contains(s, "open on db1: /etc/shadow: [7] vi") {
		t.Errorf("%s, %v", s, err)
	}
	if o := ocsf("example", v)["unmapped"].(object)["object"]; o != "/etc/shadow" {
		t.Errorf("OCSF: %v", o)
	}
	found := false
	for _, a := range logRecord(v, 1).Attributes {
		found = found || a.Key == "curfew.object" && a.Value.GetStringValue() == "/etc/shadow"
	}
	if !found {
		t.Error("OTLP has none")
	}
}

func TestCheck(t *testing.T) {
	good := Target{Name: "siem", Form: FormSyslog, To: "tls://logs.example:6514"}
	for _, c := range []struct {
		name   string
		change func(*Target)
		want   string
	}{
		{"it is right", func(*Target) {}, ""},
		{"no name", func(t *Target) { t.Name = "" }, "name of its own"},
		{"a form that there is not", func(t *Target) { t.Form = "cef" }, "syslog, ocsf or otlp"},
		{"an address of another form", func(t *Target) { t.To = "https://logs.example" }, "begins with tcp:"},
		{"no port", func(t *Target) { t.To = "tls://logs.example" }, "like tls://"},
		{"a folder that is not absolute", func(t *Target) { t.To = "unix:dev/log" }, "like unix:///"},
		{"a password in the address", func(t *Target) { t.Form, t.To = FormOTLP, "https://a:b@logs.example/v1/logs" }, "token_file"},
		{"a token in the clear", func(t *Target) { t.Form, t.To, t.TokenFile = FormOTLP, "http://logs.example/v1/logs", "/t" }, "https: only"},
		{"a CA for what has none", func(t *Target) { t.To, t.CAFile = "tcp://logs.example:514", "/c" }, "have certificates"},
		{"a beginning that there is not", func(t *Target) { t.Begin = "later" }, "start or now"},
	} {
		target := good
		c.change(&target)
		err := Check([]Target{target})
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := Check([]Target{good, good}); err == nil {
		t.Error("two have one name")
	}
}

// What retention deleted before a receiver had it is told as that, and not as a
// program that ran without a name.
func TestWhatWasDeletedSaysSo(t *testing.T) {
	for _, is := range []bool{false, true} {
		v := newShelf(1).events[0]
		v.Entry.Process, v.Deleted = nil, is
		s, err := syslogOf("fleet").message(v)
		if err != nil || strings.Contains(s, `deleted="true"`) != is {
			t.Errorf("%v: syslog %q, %v", is, s, err)
		}
		lines, err := ocsfLines("fleet", []roster.Event{v})
		if err != nil || strings.Contains(string(lines), `"deleted":true`) != is {
			t.Errorf("%v: OCSF %s, %v", is, lines, err)
		}
		if r := logRecord(v, 1); strings.Contains(r.String(), "curfew.deleted") != is {
			t.Errorf("%v: OTLP %v", is, r)
		}
	}
}
