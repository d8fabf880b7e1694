package web

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/wire/api"
)

const hostile = `"><script>alert(1)</script>`

// written is a page's text.
func written(t *testing.T, p page) string {
	t.Helper()
	var b bytes.Buffer
	if err := templates[p.Name].ExecuteTemplate(&b, "layout", p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRequestPageShowsWhatOthersWroteAsText(t *testing.T) {
	now := timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	q := &api.Request{
		Id: "r-1", Person: "ana", FullName: hostile, Role: "db-admin", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour), Reason: hostile, Ticket: hostile,
		State: "issued", AskedAt: now, NotAfter: now, Commands: []string{hostile}, DecidedBy: "x", DecisionNote: hostile,
		Approvals:  []*api.Approval{{Person: "ben", Factor: "passkey", At: now, Note: hostile}},
		HostStates: []*api.HostState{{Host: "db1", State: "installed", At: now, Left: []string{hostile}}},
		Origin:     &api.Origin{Host: "db1", Command: hostile, Directory: "/srv"},
	}
	v := requestView{
		Request: q, Allows: allowedBy(q), Others: []*api.Request{q}, Note: hostile, Left: "an hour", MayRevoke: true, MayExtend: true, Extensions: []time.Duration{time.Hour},
		Last:    &lastTime{Request: q, Commands: []ran{{Host: "db1", Line: hostile, Times: 2}}, More: 1, Left: []string{hostile}},
		Moments: []*api.Moment{{At: now, What: "exec", Host: "db1", Person: "ana", Text: hostile, Took: durationpb.New(time.Second)}},
	}
	for _, state := range []string{"asked", "issued", "ended"} {
		q.State = state
		v.MayApprove, v.MayDeny = state == "asked", state == "asked"
		text := written(t, page{Name: "request", Title: "x", Data: v, Me: &api.Person{Name: "ben", FullName: hostile}, Passkey: true, TOTP: true, Error: hostile})
		if strings.Contains(text, "<script>alert") || !strings.Contains(text, "&lt;script&gt;alert(1)") {
			t.Errorf("%s: hostile text is not text", state)
		}
		if !strings.Contains(text, "in a shell on db1") {
			t.Errorf("%s: it does not tell where it was typed", state)
		}
	}
}

// Where people's own keys sign, no code stands in for one: neither for her who
// asks, nor for who approves.
func TestPagesOfSignedRolesOfferNoCode(t *testing.T) {
	q := &api.Request{
		Id: "r-1", Person: "ana", Role: "root", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour), State: "asked", HumanSignatures: true, WaitsFor: "ana",
		Digest: []byte{0xab},
	}
	for _, c := range []struct {
		name string
		v    requestView
		key  bool // the visitor has a passkey
		want []string
	}{
		{"hers, to be signed", requestView{MaySign: true}, true, []string{`action="/requests/r-1/sign"`, "Sign it", "data-passkey", `name="digest" value="ab"`}},
		{"an approver's", requestView{MayApprove: true}, true, []string{`action="/requests/r-1/approve"`, "Approve and sign", "data-passkey"}},
		{"hers, without a passkey", requestView{MaySign: true}, false, []string{"You have no passkey yet"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.v.Request, c.v.Allows = q, allowedBy(q)
			text := written(t, page{Name: "request", Title: "x", Data: c.v, Me: &api.Person{Name: "ana"}, Passkey: c.key, TOTP: true})
			for _, w := range c.want {
				if !strings.Contains(text, w) {
					t.Errorf("%q is missing", w)
				}
			}
			if strings.Contains(text, `name="code"`) {
				t.Error("a code is asked for")
			}
		})
	}
}

// Where an earlier proof counts, no passkey is asked, and it can be all the same;
// where it does not, there is no way round.
func TestPagesAskForAProofWhenItIsNeeded(t *testing.T) {
	role := &api.Role{Name: "ops", MaxDuration: durationpb.New(time.Hour), Hosts: []string{"db1"}}
	last := &api.Request{Id: "r-1", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour)}
	const plain, passkey = `name="by" value="earlier"`, `name="by" value="passkey" data-passkey`
	for _, c := range []struct {
		proven       string
		ask, home    []string
		askNo, home2 []string
	}{
		{"4 minutes", []string{plain, passkey, `name="code"`, "You proved yourself 4 minutes ago", "Prove yourself anew"}, []string{plain}, nil, []string{passkey}},
		{"", []string{passkey, `name="code"`}, []string{passkey}, []string{plain, "You proved yourself"}, []string{plain}},
	} {
		ask := written(t, page{Name: "ask", Title: "x", Data: askView{Role: role, Proven: c.proven}, Me: &api.Person{Name: "ana"}, Passkey: true, TOTP: true})
		home := written(t, page{Name: "home", Title: "x", Data: homeView{Roles: []roleView{{role, last, c.proven}}}, Me: &api.Person{Name: "ana"}, Passkey: true, TOTP: true})
		for _, w := range []struct {
			name, text string
			has, not   []string
		}{{"ask", ask, c.ask, c.askNo}, {"home", home, c.home, c.home2}} {
			for _, s := range w.has {
				if !strings.Contains(w.text, s) {
					t.Errorf("%q: %s lacks %s", c.proven, w.name, s)
				}
			}
			for _, s := range w.not {
				if strings.Contains(w.text, s) {
					t.Errorf("%q: %s has %s", c.proven, w.name, s)
				}
			}
		}
	}
}

func TestProven(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ten := durationpb.New(10 * time.Minute)
	for _, c := range []struct {
		name  string
		fresh *durationpb.Duration
		ago   time.Duration
		want  string
	}{
		{"a role that says nothing", nil, time.Minute, ""},
		{"just now", ten, 0, "less than a minute"},
		{"within", ten, 10*time.Minute - 1, "9 minutes"},
		{"too long ago", ten, 10 * time.Minute, ""},
		{"to come", ten, -1, ""},
	} {
		if got := proven(&api.Role{Freshness: c.fresh}, &api.Proof{At: timestamppb.New(now.Add(-c.ago))}, now); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	if got := proven(&api.Role{Freshness: ten}, nil, now); got != "" {
		t.Errorf("without any: %q", got)
	}
}

// Who approves is told on which proof a request stands.
func TestRequestPageTellsOfAnEarlierProof(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	q := &api.Request{Id: "r-1", Person: "ana", Role: "ops", Hosts: []string{"db1"}, State: "asked", AskedAt: timestamppb.New(now), Duration: durationpb.New(time.Hour)}
	const told = "None of its own: proved with passkey 4 minutes before, for an approval"
	for _, p := range []*api.Proof{nil, {Factor: "passkey", For: "approval", At: timestamppb.New(now.Add(-4 * time.Minute))}} {
		q.Proof = p
		text := written(t, page{Name: "request", Title: "x", Data: requestView{Request: q, Allows: allowedBy(q)}, Me: &api.Person{Name: "ben"}})
		if strings.Contains(text, told) != (p != nil) || strings.Contains(text, "<dt>Proof") != (p != nil) {
			t.Errorf("with %v: %s", p, text)
		}
	}
}

// A page that changes is followed. One that says why there is none has nothing
// to follow: it would be loaded again and again.
func TestWhatIsFollowed(t *testing.T) {
	for name, want := range map[string]bool{"home": true, "error": false} {
		text := written(t, page{Name: name, Title: "x", Data: homeView{}, Me: &api.Person{Name: "ana"}})
		if got := strings.Contains(text, "data-follow"); got != want {
			t.Errorf("%s is followed: %v", name, got)
		}
	}
}

func TestLocal(t *testing.T) {
	for to, want := range map[string]string{
		"/requests/r-1?x=1": "/requests/r-1?x=1", "/": "/", "": "/", "x": "/", "//evil.example": "/", "/\\evil.example": "/", "https://evil.example/": "/",
		"/a/../b": "/", "/\tevil": "/", "%2f%2fevil.example": "/",
	} {
		if got := local(to); got != want {
			t.Errorf("%q leads to %q, not %q", to, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		name string
		a    allowed
		want string
	}{
		{"everything is said to be everything", allowed{Commands: []string{"ALL"}, RunAs: []string{"root"}}, "Any command at all, as root: full control of the host until the end"},
		{"a role without commands only logs in", allowed{}, "Log in, and no command with more rights than her own account's"},
		{"one command is one", allowed{Commands: []string{"/bin/x"}, RunAs: []string{"postgres"}}, "One command, as postgres, and nothing else with more rights"},
		{"where it may connect is told", allowed{Network: []string{"tcp://10.0.0.0/8:5432"}}, "Her account may connect to tcp://10.0.0.0/8:5432 and nowhere else"},
		{"what may go on is told", allowed{Drain: 5 * time.Minute}, "What runs at the end may go on for 5 minutes; nothing new begins"},
		{"that terminals are recorded is told", allowed{Terminals: "output"}, "What her terminals show is recorded"},
		{"that input is, too", allowed{Terminals: "output and input, required"}, "What her terminals show is recorded, and what she types while it shows"},
		{"that none goes without is told", allowed{Terminals: "output, required"}, "Nothing of it goes without a terminal that is recorded"},
		{"that they are not is told", allowed{Terminals: "none"}, "What her terminals show is not recorded; which programs run is"},
		{"what may take Curfew away is told", allowed{Unguarded: true}, "What runs may take Curfew itself away: what happens after that is not certain to be recorded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := words(c.a); !slices.Contains(got, c.want) {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "no time", time.Minute: "1 minute", 90 * time.Minute: "1 hour 30 minutes", 49 * time.Hour: "2 days 1 hour",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q", d, got)
		}
	}
}

func TestBrowserOf(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                              "Firefox on Linux",
		"Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Mobile Safari/537.36":            "Chrome on Android",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile Safari/604.1": "Safari on iPhone",
		hostile: "A browser on an unknown system",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("User-Agent", agent)
		if got := browserOf(r); got != want {
			t.Errorf("%q is %q", agent, got)
		}
	}
}

// A first view is under 100 kB: the first page with a screenful on it, and all
// that it loads.
func TestFirstViewIsSmall(t *testing.T) {
	total := 0
	for _, f := range assets {
		total += len(f.body)
	}
	now := timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := homeView{}
	for range 20 {
		v.Roles = append(v.Roles, roleView{
			&api.Role{Name: "db-admin", Description: strings.Repeat("x", 200), MaxDuration: durationpb.New(time.Hour)},
			&api.Request{Id: "r-1", Hosts: []string{"db1"}, Duration: durationpb.New(time.Hour), Reason: strings.Repeat("x", 200), AskedAt: now},
			"4 minutes",
		})
	}
	total += len(written(t, page{Name: "home", Title: "x", Data: v, Me: &api.Person{Name: "ana"}, Passkey: true, TOTP: true}))
	if total >= 100_000 {
		t.Errorf("%d bytes", total)
	}
}

// Of many people, and of many hosts that nobody decides on there, a page names
// some; the hosts that somebody approves are all there.
func TestPagesNameFewOfMany(t *testing.T) {
	var all []string
	for i := range 500 {
		all = append(all, fmt.Sprintf("n%03d", i))
	}
	q := &api.Request{Id: "r-1", Person: "ana", Role: "ops", Hosts: all, State: "asked", Duration: durationpb.New(time.Hour)}
	me, some, whole := &api.Person{Name: "ana"}, "n006, n007 and 492 more", strings.Join(all, ", ")
	for name, p := range map[string]page{
		"ask":      {Name: "ask", Data: askView{Role: &api.Role{Name: "ops", ApprovalsNeeded: 1, Approvers: all}}},
		"requests": {Name: "requests", Data: requestsView{All: []*api.Request{q}}},
		"request":  {Name: "request", Data: requestView{Request: q, Others: []*api.Request{q}}},
	} {
		p.Title, p.Me = "x", me
		text := written(t, p)
		if !strings.Contains(text, some) || strings.Contains(text, whole) != (name == "request") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// Where somebody is told by mail stands on her own page, and on that of admins.
func TestPagesShowWhereSheIsTold(t *testing.T) {
	const email = "ana@example.com"
	for name, c := range map[string]struct{ with, without page }{
		"me":     {page{Me: &api.Person{Name: "ana", Email: email}, Data: meView{}}, page{Me: &api.Person{Name: "ana"}, Data: meView{}}},
		"people": {page{Me: &api.Person{Name: "ada"}, Data: []*api.Person{{Name: "ana", Email: email}}}, page{Me: &api.Person{Name: "ada"}, Data: []*api.Person{{Name: "ana"}}}},
	} {
		for p, want := range map[*page]bool{&c.with: true, &c.without: false} {
			p.Name, p.Title = name, "x"
			if text := written(t, *p); strings.Contains(text, email) != want || strings.Contains(text, "What concerns me") != (want && name == "me") {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
}
