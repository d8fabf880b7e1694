package arch

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// A lever is something that one room does for all the others.
type lever struct {
	what    string
	imports []string            // packages, and those below them
	calls   map[string][]string // package -> functions
	rooms   []string            // that may
}

var levers = []lever{
	{
		what:    "starts programs",
		imports: []string{"os/exec"},
		calls:   map[string][]string{"os": {"StartProcess"}, "syscall": {"Exec", "ForkExec"}, "golang.org/x/sys/unix": {"Exec"}},
		// The recorder starts itself for each terminal, and the login shell the
		// person's real one: neither is the agent. The control plane starts nothing
		// but the command that its operator has say who is on call.
		rooms: []string{"agent/host", "agent/record", "agent/record/shell", "cmd/curfew", "controlplane/oncall", "test"},
	},
	{
		what:    "speaks SQL",
		imports: []string{"database/sql", "modernc.org/sqlite", "github.com/pressly/goose", "github.com/jackc/pgx"},
		rooms:   []string{"controlplane/store"},
	},
	{
		what:  "reads the time",
		calls: map[string][]string{"time": {"Now", "Since", "Until"}},
		rooms: []string{"clock", "cmd/curfew", "cmd/curfew-agent", "cmd/curfew-server", "test", "test/pages"},
	},
	{
		what: "writes files",
		calls: map[string][]string{"os": {
			"Chmod", "Chown", "Create", "CreateTemp", "Lchown", "Link", "Mkdir", "MkdirAll", "MkdirTemp", "OpenFile",
			"Remove", "RemoveAll", "Rename", "Symlink", "Truncate", "WriteFile",
		}},
		imports: []string{"github.com/google/renameio"},
		// The agent joins a fleet once, and init makes one; fleet, identity and sign make their
		// own keys, and a witness its own, with what it cosigned; forward adds to a file that the operator names; watch pins in
		// bpffs; door owns its socket, and record its own and the recordings; the command line has a device key, and what
		// runs before sudo asks at the terminal.
		rooms: []string{
			"agent", "agent/door", "agent/host", "agent/keep", "agent/record", "agent/watch", "cmd/curfew", "cmd/curfew-agent",
			"controlplane", "controlplane/archive", "controlplane/fleet", "controlplane/forward", "controlplane/identity", "controlplane/sign", "keyfile", "test", "test/pages", "witness",
		},
	},
	{
		what:    "loads BPF",
		imports: []string{"github.com/cilium/ebpf"},
		rooms:   []string{"agent/watch", "bpf", "test"},
	},
	{
		what:    "changes the network",
		imports: []string{"github.com/google/nftables", "github.com/vishvananda/netlink"},
		rooms:   []string{"agent/host", "test"},
	},
}

func TestOneHandOnEachLever(t *testing.T) {
	for _, s := range sources(t) {
		for _, l := range levers {
			if slices.Contains(l.rooms, s.room) {
				continue
			}
			for _, imp := range imports(t, s) {
				if slices.ContainsFunc(l.imports, func(p string) bool { return below(imp, p) }) {
					t.Errorf("%s imports %s: only %s %s", s.name, imp, strings.Join(l.rooms, ", "), l.what)
				}
				for _, call := range uses(s.ast, imp, l.calls[imp]) {
					t.Errorf("%s uses %s.%s: only %s %s", s.name, imp, call, strings.Join(l.rooms, ", "), l.what)
				}
			}
		}
	}
}

func below(dir, room string) bool { return dir == room || strings.HasPrefix(dir, room+"/") }

// uses returns those of the names that f takes from the package imp.
func uses(f *ast.File, imp string, names []string) []string {
	if len(names) == 0 {
		return nil
	}
	local := path.Base(imp)
	for _, spec := range f.Imports {
		if spec.Path.Value == `"`+imp+`"` && spec.Name != nil {
			local = spec.Name.Name
		}
	}
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local && slices.Contains(names, s.Sel.Name) {
				found = append(found, s.Sel.Name)
			}
		}
		return true
	})
	return found
}
