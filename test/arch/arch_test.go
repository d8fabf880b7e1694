// Package arch holds the house to its plan: which room may import which, who
// may pull which lever, how large a file may be, and where a link in the docs
// leads.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "curfew.internal"

// rooms says, for each room, the rooms of ours it may import. A package
// belongs to the longest room that its path lies under.
//
// Do not loosen a line to make a build pass: the table is the design. Change
// it in a commit of its own, with the reason.
var rooms = map[string][]string{
	// Leaves: no room of ours but canon and dsse, which know nothing of us.
	"canon":   {},
	"dsse":    {"canon"},
	"grant":   {"canon", "dsse"},
	"ledger":  {"canon", "dsse"},
	"clock":   {},
	"durable": {},
	"keyfile": {"durable"},
	"bpf":     {},
	"cast":    {}, // recordings of terminals, and how to show one

	"cast/screen": {"cast"}, // what stood on the screen

	"witness": {"clock", "durable", "ledger"}, // an auditor's, who trusts no control plane

	"completion": {"test"}, // of shells, for the three programs

	// What our programs say to each other. Generated types are for the two
	// ends of each protocol alone.
	"wire/api":       {},
	"wire/uplink":    {},
	"wire/door":      {},
	"wire/invite":    {"canon"},
	"wire/shell":     {},
	"wire/signature": {},
	"wire/terminal":  {}, // between login shell, recorder and agent

	// The root package of a side wires its rooms and knows what they share.
	"agent": {
		"agent/doctor", "agent/door", "agent/enforce", "agent/host", "agent/keep", "agent/record", "agent/uplink", "agent/watch", "agent/writer",
		"cast", "clock", "grant", "ledger", "wire/door", "wire/invite", "wire/shell", "wire/terminal",
	},
	"agent/doctor":       {},
	"agent/enforce":      {"grant"},
	"agent/host":         {"agent/doctor", "agent/enforce", "agent/host/remains", "agent/host/tree", "clock", "grant"},
	"agent/host/remains": {"agent/host/tree", "grant"},
	"agent/host/tree":    {},
	"agent/keep":         {"canon", "clock", "dsse", "durable", "grant", "ledger"},
	"agent/door":         {"clock", "wire/door", "wire/shell"},
	"agent/record":       {"cast", "clock", "durable", "grant", "wire/terminal"},
	"agent/record/shell": {"agent/record", "clock", "wire/terminal"}, // a program of the person's, without privilege
	"agent/uplink":       {"agent/doctor", "clock", "dsse", "grant", "ledger", "wire/invite", "wire/uplink"},
	"agent/watch":        {"bpf", "clock", "ledger"},
	"agent/writer":       {"clock", "ledger"},

	"controlplane": {
		"clock", "controlplane/api", "controlplane/archive", "controlplane/cosign", "controlplane/fleet", "controlplane/forward", "controlplane/gate", "controlplane/identity", "controlplane/notify", "controlplane/oncall", "controlplane/policy", "controlplane/policy/folder", "controlplane/request",
		"controlplane/roster", "controlplane/scim", "controlplane/sign", "controlplane/store", "controlplane/tiles", "controlplane/web", "dsse", "durable", "grant", "ledger", "wire/invite", "wire/signature",
	},
	"controlplane/archive": {"durable"}, // files by their digests
	"controlplane/cosign":  {"clock", "controlplane/roster", "ledger"},
	"controlplane/tiles":   {"controlplane/roster"},
	"controlplane/api": {
		"canon", "cast", "clock", "controlplane/policy", "controlplane/policy/folder", "controlplane/request", "controlplane/roster", "dsse", "grant", "ledger",
		"wire/api", "wire/signature",
	},
	"controlplane/fleet":            {"clock", "controlplane/roster", "grant", "ledger", "wire/invite", "wire/uplink"},
	"controlplane/forward":          {"clock", "controlplane/roster", "durable", "ledger"},
	"controlplane/gate":             {"clock"}, // who holds a server's connections
	"controlplane/identity":         {"canon", "clock", "controlplane/roster", "dsse", "grant"},
	"controlplane/notify":           {"clock", "controlplane/roster", "ledger"},
	"controlplane/oncall":           {"clock", "controlplane/roster", "grant"}, // asks a file or a command
	"controlplane/policy":           {"controlplane/policy/condition", "controlplane/roster", "grant"},
	"controlplane/policy/condition": {}, // expressions, and what they may look at
	"controlplane/policy/folder":    {"controlplane/policy"},
	"controlplane/policy/plan":      {"controlplane/policy", "controlplane/roster"},
	"controlplane/policy/trial":     {"controlplane/policy", "controlplane/roster"},
	"controlplane/scim":             {"clock", "controlplane/roster", "grant"},
	"controlplane/request":          {"controlplane/policy", "controlplane/roster", "grant"},
	"controlplane/roster":           {"grant", "ledger"},                                           // plain values that the others pass on
	"controlplane/sign":             {"controlplane/roster", "dsse", "grant", "keyfile", "ledger"}, // it signs what the log says of itself
	"controlplane/store":            {"controlplane/request", "controlplane/roster", "dsse", "grant", "ledger"},
	"controlplane/web":              {"cast", "cast/screen", "clock", "controlplane/policy", "controlplane/roster", "ledger", "wire/api"}, // it calls the API through what it declares itself

	"packaging/man": {}, // manual pages, from the model of a command line

	"cmd/curfew": {
		"cast", "clock", "completion", "controlplane/policy", "controlplane/policy/folder", "controlplane/policy/plan", "controlplane/policy/trial",
		"controlplane/roster", "dsse", "grant", "keyfile", "ledger", "packaging/man", "wire/api", "wire/invite", "wire/signature", "witness",
	},
	"cmd/curfew-server": {"clock", "completion", "controlplane", "controlplane/policy", "controlplane/policy/folder", "packaging/man"},
	"cmd/curfew-agent":  {"agent", "agent/doctor", "completion", "packaging/man", "wire/shell"},
	"cmd/curfew-record": {"agent/record", "clock"},
	"cmd/curfew-shell":  {"agent/record/shell", "clock"},
	"test":              {"clock", "dsse", "grant", "ledger", "wire/api", "wire/invite"},
	// It plays both ends: a control plane, and hosts that have no machine.
	"test/pages": {"agent/doctor", "agent/uplink", "cast", "clock", "controlplane", "grant", "ledger", "test", "wire/api", "wire/invite", "wire/signature"},
}

// landing are rooms of the plan that are still empty.
var landing = []string{"controlplane/request", "cmd/curfew-server"}

// pure rooms can neither block, nor fail for the machine's sake, nor read the
// time: they may not import these either.
var (
	pure = []string{
		"canon", "cast", "cast/screen", "dsse", "grant", "ledger",
		"agent/doctor", "agent/enforce", "controlplane/policy", "controlplane/policy/condition", "controlplane/policy/plan", "controlplane/policy/trial", "controlplane/request",
	}
	worldy = []string{
		"context", "database/sql", "io/ioutil", "log", "log/slog", "math/rand", "math/rand/v2", "net", "net/http",
		"os", "os/exec", "os/user", "sync", "syscall", "golang.org/x/sys/unix",
	}
)

// A source is one hand-written or generated Go file that is not a test.
type source struct {
	name string // from the top of the repository
	dir  string
	room string
	text []byte
	ast  *ast.File
}

// sources reads every Go file of the main module, tests left out. The files
// are read in this process, not through "go list": so the test cache knows
// them, and a new import makes the test run again.
func sources(t *testing.T) []source {
	t.Helper()
	root := os.DirFS("../..")
	var found []source
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && skipped(root, name) {
			return fs.SkipDir
		}
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		found = append(found, source{name, dir, roomOf(dir), text, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// skipped reports whether a folder is none of the main module's.
func skipped(root fs.FS, dir string) bool {
	if dir == "." {
		return false
	}
	base := path.Base(dir)
	if strings.HasPrefix(base, ".") || base == "testdata" || dir == "bin" {
		return true
	}
	_, err := fs.Stat(root, path.Join(dir, "go.mod"))
	return err == nil
}

func TestRooms(t *testing.T) {
	empty := map[string]bool{}
	for room := range rooms {
		empty[room] = true
	}
	homeless := map[string]bool{}
	for _, s := range sources(t) {
		if s.room == "" {
			homeless[s.dir] = true
			continue
		}
		empty[s.room] = false
		for _, imp := range imports(t, s) {
			check(t, s, imp)
		}
	}
	for dir := range homeless {
		t.Errorf("%s lies in no room: give it one in the plan, or move it", dir)
	}
	for room := range empty {
		if empty[room] && !slices.Contains(landing, room) {
			t.Errorf("room %s is empty: drop it from the plan", room)
		}
	}
}

func check(t *testing.T, s source, imp string) {
	t.Helper()
	if ours, ok := strings.CutPrefix(imp, module+"/"); ok {
		if to := roomOf(ours); to != s.room && !slices.Contains(rooms[s.room], to) {
			t.Errorf("%s imports %s: %s may not use %s", s.name, ours, s.room, to)
		}
	} else if slices.Contains(pure, s.room) && slices.Contains(worldy, imp) {
		t.Errorf("%s imports %s: %s is pure", s.name, imp, s.room)
	}
}

func imports(t *testing.T, s source) []string {
	t.Helper()
	var all []string
	for _, spec := range s.ast.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		all = append(all, imp)
	}
	return all
}

func roomOf(dir string) string {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := rooms[dir]; ok {
			return dir
		}
	}
	return ""
}

// The two sides never know each other, whatever the table says.
func TestTableKeepsTheSidesApart(t *testing.T) {
	side := func(room string) string {
		top, _, _ := strings.Cut(room, "/")
		return top
	}
	for room, uses := range rooms {
		for _, to := range uses {
			a, b := side(room), side(to)
			if a == "agent" && b == "controlplane" || a == "controlplane" && b == "agent" {
				t.Errorf("%s may use %s: the agent and the control plane meet in wire alone", room, to)
			}
			// roster is plain values; it knows of logs to keep secrets out of them.
			if slices.Contains(pure, room) && !slices.Contains(pure, to) && to != "controlplane/roster" {
				t.Errorf("%s may use %s: the first is pure, the second is not", room, to)
			}
			if _, ok := rooms[to]; !ok {
				t.Errorf("%s may use %s: no such room", room, to)
			}
		}
	}
}
