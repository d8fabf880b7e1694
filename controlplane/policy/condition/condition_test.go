package condition

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// monday is a Monday in January, when Berlin is an hour ahead.
var monday = time.Date(2027, 1, 11, 9, 30, 0, 0, time.UTC)

func compiler(tb testing.TB) *Compiler {
	tb.Helper()
	c, err := NewCompiler()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func known(change func(*Facts)) Facts {
	f := Facts{
		Person: "ana", Groups: []string{"dba", "sre"}, Begin: monday, Length: 2 * time.Hour, Source: "10.1.2.3", Reason: "disk full", Ticket: "INC-4121",
		Host: "db1", Labels: map[string]string{"tier": "db", "env": "prod"},
	}
	if change != nil {
		change(&f)
	}
	return f
}

const (
	yes = ""
	no  = "it does not hold"
)

func TestConditions(t *testing.T) {
	c := compiler(t)
	at := func(s string) func(*Facts) {
		return func(f *Facts) {
			var err error
			if f.Begin, err = time.Parse(time.RFC3339Nano, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	const office, night = `begin.during('mon-fri 08:00-18:00', 'Europe/Berlin')`, `begin.during('fri 22:00-06:00', 'Europe/Berlin')`
	for _, x := range []struct {
		name, text string
		change     func(*Facts)
		want       string
	}{
		{"who asks", `person in ['ana', 'ben']`, nil, yes},
		{"a group that she is in", `'dba' in groups`, nil, yes},
		{"a group that she is not in", `'web' in groups`, nil, no},
		{"no groups at all", `groups.exists(g, g.startsWith('d'))`, func(f *Facts) { f.Groups = nil }, no},
		{"a label", `labels.env == 'prod'`, nil, yes},
		{"another value of it", `labels.env == 'test'`, nil, no},
		{"a label that the host has not got cannot be judged", `labels.zone != 'eu'`, nil, "no such key: zone"},
		{"a host without labels", `has(labels.env)`, func(f *Facts) { f.Labels = nil }, no},
		{"no longer than", `length <= duration('2h')`, nil, yes},
		{"longer than", `length < duration('2h')`, nil, no},
		{"a ticket by its beginning", `ticket.startsWith('INC-')`, nil, yes},
		{"a ticket by a pattern", `ticket.matches('^CHG-[0-9]+$')`, nil, no},
		{"one of two", `labels.env == 'test' || ticket != ''`, nil, yes},
		{"in office hours, by Berlin's clocks", office, nil, yes},
		{"with the first second", office, at("2027-01-11T07:00:00Z"), yes},
		{"and not the one before", office, at("2027-01-11T06:59:59.999Z"), no},
		{"with the last instant", office, at("2027-01-11T17:00:00Z"), yes},
		{"and not the next", office, at("2027-01-11T17:00:00.000000001Z"), no},
		{"in summer, an hour earlier in UTC", office, at("2027-07-12T06:00:00Z"), yes},
		{"which in winter it is not", office, at("2027-01-11T06:00:00Z"), no},
		{"on Saturday there are none", office, at("2027-01-16T09:00:00Z"), no},
		{"the end of the grant, too", `end.during('mon-fri 08:00-18:00', 'Europe/Berlin')`, func(f *Facts) { f.Length = 9 * time.Hour }, no},
		{"a night goes on into the next day", night, at("2027-01-16T04:59:00Z"), yes},
		{"and begins on its own", night, at("2027-01-15T21:00:00Z"), yes},
		{"and not on the day before", night, at("2027-01-15T04:00:00Z"), no},
		{"and ends", night, at("2027-01-16T05:00:01Z"), no},
		{"an hour that clocks show twice is in it both times, first", `begin.during('sun 02:00-02:59', 'Europe/Berlin')`, at("2027-10-31T00:30:00Z"), yes},
		{"and again", `begin.during('sun 02:00-02:59', 'Europe/Berlin')`, at("2027-10-31T01:30:00Z"), yes},
		{"an hour that they pass over does not come", `begin.during('sun 02:00-02:59', 'Europe/Berlin')`, at("2027-03-28T01:30:00Z"), no},
		{"a whole day, to its end", `begin.during('mon 00:00-24:00', 'UTC')`, at("2027-01-12T00:00:00Z"), yes},
		{"and no further", `begin.during('mon 00:00-24:00', 'UTC')`, at("2027-01-12T00:00:01Z"), no},
		{"days over the end of the week", `begin.during('sat-mon 09:00-10:00', 'UTC')`, nil, yes},
		{"an address in a network", `source.inside('10.0.0.0/8')`, nil, yes},
		{"out of it", `source.inside('192.168.0.0/16')`, nil, no},
		{"one that is written as if of another family", `source.inside('10.0.0.0/8')`, func(f *Facts) { f.Source = "::ffff:10.1.2.3" }, yes},
		{"one with a zone", `source.inside('fe80::/10')`, func(f *Facts) { f.Source = "fe80::1%eth0" }, yes},
		{"one that is not known cannot be judged", `!source.inside('192.168.0.0/16')`, func(f *Facts) { f.Source = "" }, "is not known"},
		{"nor one that is none", `source.inside('10.0.0.0/8')`, func(f *Facts) { f.Source = "10.1" }, "ParseAddr"},
	} {
		t.Run(x.name, func(t *testing.T) {
			read, mistake := c.Compile(x.text)
			if mistake != nil {
				t.Fatal(mistake)
			}
			err := read.Holds(known(x.change))
			switch {
			case x.want == yes && err != nil, x.want == no && !errors.Is(err, ErrNot):
				t.Errorf("%v", err)
			case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)):
				t.Errorf("%v, want %s", err, x.want)
			}
		})
	}
}

func TestWhatIsNoCondition(t *testing.T) {
	c := compiler(t)
	nested := `groups.all(a, groups.all(b, groups.all(c, a != b || b != c)))`
	for _, x := range []struct{ name, text, want string }{
		{"nothing", "  ", "1 to 500"},
		{"too long", strings.Repeat("true && ", 70) + "true", "1 to 500"},
		{"no expression", `labels.env ==`, "Syntax error"},
		{"a name that nothing has", `user == 'ana'`, "undeclared reference to 'user'"},
		{"no answer of yes or no", `person`, "has to come to true or false"},
		{"two kinds compared", `length < 5`, "no matching overload"},
		{"parts of a time without a zone", `begin.getHours() < 18`, "undeclared reference to 'getHours'"},
		{"a zone that there is not", `begin.during('daily 08:00-18:00', 'Europe/Berlln')`, "no time zone"},
		{"the machine's own zone", `begin.during('daily 08:00-18:00', 'Local')`, "no time zone"},
		{"a window that is none", `begin.during('mon-fry 08:00-18:00', 'UTC')`, "no window"},
		{"an hour that there is not", `begin.during('mon 08:00-25:00', 'UTC')`, "no window"},
		{"a window of no time", `begin.during('mon 08:00-08:00', 'UTC')`, "no window"},
		{"a window that is put together", `begin.during('mon ' + reason, 'UTC')`, "in quotes"},
		{"a network that is none", `source.inside('10.0.0.0')`, "no network"},
		{"a network with bits after its length", `source.inside('10.0.0.1/8')`, "no network"},
		{"a pattern that is none", `ticket.matches('(')`, "invalid"},
		{"a pattern that makes a large program", `ticket.matches('(a{500}){2}')`, "regex"},
		{"a list of lists of lists", nested, "nesting"},
		{"brackets without end", strings.Repeat("(", 400), "recursion"},
		{"texts that grow", strings.Repeat("(reason+reason+reason+reason).contains(reason+reason) || ", 8) + "true", "cost too much"},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, mistake := c.Compile(x.text)
			if mistake == nil || !strings.Contains(mistake.Text, x.want) {
				t.Errorf("%v, want %s", mistake, x.want)
			}
		})
	}
	if _, mistake := c.Compile(`person == 'ana' && usr == 'b'`); mistake == nil || mistake.At != strings.Index(`person == 'ana' && usr == 'b'`, "usr") {
		t.Errorf("%+v", mistake)
	}
}

func TestNothingHoldsThatWasNotRead(t *testing.T) {
	if (*Condition)(nil).Holds(known(nil)) == nil || (&Condition{}).Holds(known(nil)) == nil {
		t.Error("it holds")
	}
}

// Whatever is written, it is read or refused, with its place; and what is read
// is judged within its cost.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`labels.env == 'prod' && 'dba' in groups`, `begin.during('mon-fri 08:00-18:00', 'Europe/Berlin')`, `source.inside('10.0.0.0/8') ? true : length < duration('1h')`,
		`groups.all(a, groups.exists(b, a == b))`, `ticket.matches('^INC-[0-9]+$')`, `labels['a'] in ['b']`, `((((`, `reason.size() > 3`, `timestamp('2027-01-01T00:00:00Z') < begin`,
	} {
		f.Add(s)
	}
	c := compiler(f)
	f.Fuzz(func(t *testing.T, text string) {
		read, mistake := c.Compile(text)
		if (read == nil) == (mistake == nil) {
			t.Fatalf("%+v %+v", read, mistake)
		}
		if mistake != nil && (mistake.Text == "" || mistake.At < 0 || mistake.At > len(text)+1) {
			t.Errorf("%+v", mistake)
		}
		if read == nil {
			return
		}
		first := read.Holds(known(nil))
		if again := read.Holds(known(nil)); (first == nil) != (again == nil) {
			t.Errorf("%q: %v, then %v", text, first, again)
		}
	})
}
