package packaging

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"curfew.internal/test/need"
)

var made struct {
	sync.Mutex
	dir string
}

// present are the packages of this tree, as version 0.9.2. They are built once
// for all tests.
func present(t *testing.T) (out string) {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	if made.dir != "" {
		return made.dir
	}
	dir, err := os.MkdirTemp("", "packages") //nolint:usetesting // it outlives the test that asks first
	if err != nil {
		t.Fatal(err)
	}
	made.dir = dir
	for _, f := range packages(t, build(t, repository(t), "0.9.2"), "curfew*") {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), []byte(read(t, f)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tidy takes them away.
func tidy() { _ = os.RemoveAll(made.dir) }

// build builds the packages of a version, from the tree in a folder.
func build(t *testing.T, tree, version string, more ...string) (out string) {
	t.Helper()
	out = t.TempDir()
	run(t, exec.CommandContext(t.Context(), filepath.Join(tree, "packaging", "build.sh"), out),
		append([]string{"VERSION=" + version, "SOURCE_DATE_EPOCH=1767225600", "ARCHES=amd64"}, more...)...)
	return out
}

func run(t *testing.T, cmd *exec.Cmd, env ...string) string {
	t.Helper()
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

func output(ctx context.Context, t *testing.T, name string, args ...string) string {
	t.Helper()
	return run(t, exec.CommandContext(ctx, name, args...), "LC_ALL=C")
}

func repository(t *testing.T) string {
	t.Helper()
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func packages(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	return found
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// shells have $2 completed, each by what the packages put where it looks by
// itself. For bash that is the work of a package of Debian's, bash-completion.
var shells = map[string]string{
	"bash": `. "/usr/share/bash-completion/completions/${2%% *}"
by=$(complete -p "${2%% *}" | sed -n "s/.* -C '\([^']*\)' .*/\1/p")
COMP_LINE=$2 COMP_POINT=${#2} "$by"`,
	"zsh": `timeout 120 zsh -fc 'zmodload zsh/zpty
zpty z zsh -fi
zpty -w z "autoload -U compinit && compinit -D && echo \${:-re}ady"
zpty -r -m z said "*ready*2004h*"
zpty -w -n z "$1"$'"'\t'"'
zpty -r -m z said "*$1*[a-z] *"
print -r -- "$said"' zsh "$2"`,
	"fish": `HOME=$1 fish -c 'complete -C $argv[1]' "$2"`,
}

// unpacksBelow is a PATH whose cpio unpacks below its folder. rpmlint has it
// unpack RPMs as root, and in ours names begin with a slash: it would write
// over the machine's own files, and find none to look at.
func unpacksBelow(t *testing.T) string {
	t.Helper()
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cpio"), []byte("#!/bin/sh\nexec "+cpio+` --no-absolute-filenames "$@"`+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return "PATH=" + dir + ":" + os.Getenv("PATH")
}

// rpm asks about packages, and keeps no books at home.
func rpm(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, exec.CommandContext(t.Context(), "rpm", args...), "LC_ALL=C", "HOME="+t.TempDir())
}

// onMachine is when the files whose names RPMs have were made on this machine.
func onMachine(t *testing.T, rpms []string) map[string]string {
	t.Helper()
	made := map[string]string{}
	for name := range strings.Lines(rpm(t, append([]string{"-qpl"}, rpms...)...)) {
		name = strings.TrimSpace(name)
		if st, err := os.Lstat(name); err == nil && !st.IsDir() {
			made[name] = st.ModTime().String()
		}
	}
	return made
}

func TestPackages(t *testing.T) {
	need.Program(t, "lintian", "rpm", "rpmlint", "cpio", "dpkg-deb", "gcc", "objdump")
	tree := repository(t)
	first := build(t, tree, "0.9.1", "ARCHES=amd64 arm64")

	t.Run("the same tree elsewhere gives the same bytes", func(t *testing.T) {
		copied := filepath.Join(t.TempDir(), "elsewhere", "tree")
		if err := os.MkdirAll(copied, 0o700); err != nil {
			t.Fatal(err)
		}
		output(t.Context(), t, "sh", "-c", `cd "$1" && git ls-files -z -co --exclude-standard | tar -c --null -T - | (umask 077; tar -x -C "$2")`, "copy", tree, copied)
		second := build(t, copied, "0.9.1", "ARCHES=amd64 arm64", "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "HOME="+t.TempDir(),
			"GOCACHE="+strings.TrimSpace(output(t.Context(), t, "go", "env", "GOCACHE")), "GOPATH="+strings.TrimSpace(output(t.Context(), t, "go", "env", "GOPATH")))
		if diff := cmp.Diff(read(t, filepath.Join(first, "SHA256SUMS")), read(t, filepath.Join(second, "SHA256SUMS"))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("every package for every machine that it runs on", func(t *testing.T) {
		var names []string
		for _, f := range packages(t, first, "*") {
			names = append(names, filepath.Base(f))
		}
		want := []string{
			"SHA256SUMS",
			"curfew-0.9.1-1.aarch64.rpm", "curfew-0.9.1-1.x86_64.rpm", "curfew-agent-0.9.1-1.aarch64.rpm", "curfew-agent-0.9.1-1.x86_64.rpm",
			"curfew-agent_0.9.1_amd64.deb", "curfew-agent_0.9.1_arm64.deb",
			"curfew-server-0.9.1-1.aarch64.rpm", "curfew-server-0.9.1-1.x86_64.rpm",
			"curfew-server_0.9.1_amd64.deb", "curfew-server_0.9.1_arm64.deb", "curfew_0.9.1_amd64.deb", "curfew_0.9.1_arm64.deb",
		}
		slices.Sort(names)
		if diff := cmp.Diff(want, names); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("lintian finds nothing", func(t *testing.T) {
		out := output(t.Context(), t, "lintian", append([]string{"--allow-root", "--fail-on", "error,warning"}, packages(t, first, "*.deb")...)...)
		if out = strings.TrimSpace(out); out != "" {
			t.Error(out)
		}
	})
	t.Run("rpmlint finds nothing", func(t *testing.T) {
		rpms := packages(t, first, "*.rpm")
		before := onMachine(t, rpms)
		out := run(t, exec.CommandContext(t.Context(), "rpmlint", append([]string{"-c", "rpmlint.toml"}, rpms...)...), "LC_ALL=C", "HOME="+t.TempDir(), unpacksBelow(t))
		if diff := cmp.Diff(before, onMachine(t, rpms)); diff != "" {
			t.Errorf("the machine is not what it was: %s", diff)
		}
		if !strings.Contains(out, " 6 packages and 0 specfiles checked; 0 errors, 0 warnings") {
			t.Error(out)
		}
	})
	// Folders of shells are whoever's that puts something in: not every host has the shells.
	own := regexp.MustCompile(`^d\S+ .* /usr/((share/doc|libexec)/curfew(-agent|-server)?|share/(zsh(/site-functions)?|fish(/vendor_completions.d)?))$`)
	t.Run("an RPM owns its own files and folders alone", func(t *testing.T) {
		for _, f := range packages(t, first, "*.rpm") {
			for line := range strings.Lines(rpm(t, "-qplv", f)) {
				words := strings.Fields(line)
				if len(words) < 9 || words[0][0] != '-' && !own.MatchString(strings.TrimSpace(line)) || words[2] != "root" || words[3] != "root" || strings.Contains(words[0][1:], "s") {
					t.Errorf("%s: %s", filepath.Base(f), line)
				}
			}
		}
	})
	t.Run("a deb and an RPM hold the same programs", func(t *testing.T) {
		for _, p := range []string{"curfew", "curfew-agent", "curfew-server"} {
			deb := output(t.Context(), t, "sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -xO ./usr/bin/"$2" | sha256sum`, "sum", filepath.Join(first, p+"_0.9.1_amd64.deb"), p)
			all := rpm(t, "-qp", "--qf", "[%{FILENAMES} %{FILEDIGESTS}\n]", filepath.Join(first, p+"-0.9.1-1.x86_64.rpm"))
			if !strings.Contains(all, "/usr/bin/"+p+" "+strings.Fields(deb)[0]) {
				t.Errorf("%s: %s is not in %s", p, deb, all)
			}
		}
	})
	t.Run("a package completes its commands in each shell", func(t *testing.T) {
		need.Root(t)
		need.Program(t, "bash", "zsh", "fish")
		dir := t.TempDir() // without a comma or colon in it, as mount's options want it
		for _, f := range packages(t, first, "*_amd64.deb") {
			output(t.Context(), t, "dpkg-deb", "-x", f, dir)
		}
		for _, c := range []struct{ line, whole string }{{"curfew who", "whoami"}, {"curfew-agent doc", "doctor"}, {"curfew-server ser", "serve"}} {
			for name, script := range shells {
				out := output(t.Context(), t, "unshare", "-m", "--propagation", "private", "bash", "-euc", `for d in bin share; do mount -t overlay o -o "lowerdir=$1/usr/$d:/usr/$d" /usr/$d; done
`+script, name, dir, c.line)
				if !strings.Contains(out, c.whole) {
					t.Errorf("%s: %q is not completed by %s: %q", name, c.line, c.whole, out)
				}
			}
		}
	})
	t.Run("a package says what is in it", func(t *testing.T) {
		for _, f := range packages(t, first, "*_amd64.deb") {
			dir := t.TempDir()
			output(t.Context(), t, "dpkg-deb", "-x", f, dir)
			doc := filepath.Join(dir, "usr/share/doc", strings.Split(filepath.Base(f), "_")[0])
			bill := read(t, filepath.Join(doc, "sbom.cdx.json"))
			if !strings.Contains(bill, "2026-01-01T00:00:00Z") || !strings.Contains(bill, "pkg:golang/std@") || !strings.Contains(bill, "github.com/alecthomas/kong") {
				t.Errorf("%s: %.2000s", f, bill)
			}
			licences := output(t.Context(), t, "zcat", filepath.Join(doc, "modules.licences.gz"))
			if !strings.Contains(licences, "=== github.com/alecthomas/kong@") || !strings.Contains(licences, "Permission is hereby granted") {
				t.Errorf("%s: %.500s", f, licences)
			}
		}
	})
}
