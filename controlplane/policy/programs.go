package policy

import (
	_ "embed" // the lists themselves
	"path"
	"slices"
	"strings"

	"curfew.internal/grant"
)

var (
	//go:embed programs.txt
	programsText string
	//go:embed reads.txt
	readsText string

	programs = parsePrograms(programsText)
	readers  = parseReads(readsText)
)

// A program is a line of programs.txt.
type program struct {
	kind   string
	always bool     // whatever its arguments
	words  []string // arguments that do it too
	how    string
	source string
}

// parsePrograms reads our own list; a test looks at each line.
func parsePrograms(text string) map[string]program {
	all := map[string]program{}
	for l := range contents(text) {
		f := strings.Split(l, "|")
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		when := strings.Fields(f[2])
		all[f[0]] = program{kind: f[1], always: when[0] == "always", words: when[1:], how: f[3], source: f[4]}
	}
	return all
}

func parseReads(text string) map[string][]string {
	all := map[string][]string{}
	for l := range contents(text) {
		f := strings.Fields(l)
		all[f[0]] = f[1:]
	}
	return all
}

// contents are the lines that are neither empty nor comments.
func contents(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for l := range strings.Lines(text) {
			if l = strings.TrimSpace(l); l != "" && l[0] != '#' && !yield(l) {
				return
			}
		}
	}
}

// known finds a program by its file's name, also where a distribution adds a
// version or a flavour: python3.11, vim.basic.
func known(file string) (program, bool) {
	base := path.Base(file)
	if name, flavour, _ := strings.Cut(base, "."); slices.Contains(flavours, flavour) {
		base = name
	}
	p, ok := programs[base]
	if !ok {
		p, ok = programs[strings.TrimRight(base, "0123456789.-")]
	}
	return p, ok
}

// flavours are endings by which Debian tells builds of one program apart. Any
// other ending is another program: install.sh is not install.
var flavours = []string{"basic", "tiny", "nox", "gtk3", "openbsd", "traditional"}

// wide says how a command is wider than it looks, and what to write instead.
func wide(c grant.Command, noexec bool) (text, fix string) {
	p, ok := known(c.Path)
	if !ok || !p.always && !c.AnyArgs && !slices.ContainsFunc(p.words, func(w string) bool { return slices.Contains(c.Args, w) }) {
		return "", ""
	}
	base := path.Base(c.Path)
	because := " (" + p.how + "; " + p.source + ")"
	switch p.kind {
	case "pager":
		if noexec && !c.AnyArgs {
			return "", ""
		}
		if noexec {
			return base + " shows any file", "name the file"
		}
		return base + " gives a shell" + because, "write `noexec: true`, or let a group read the file"
	case "shell":
		return base + " gives a shell" + because, "it is as wide as any_command: name a script of your own"
	case "editor":
		return base + " gives a shell and writes any file" + because, "it is as wide as any_command: name a script that makes the change"
	case "starts":
		return base + " can start any other program" + because, "it is as wide as any_command: write the arguments out"
	case "writes":
		return base + " reaches every file" + because, "it is as wide as any_command: write the arguments out"
	default:
		return base + " changes who may do what" + because, "it outlives the grant: leave this to those who keep the policy"
	}
}

// reads reports whether a command only looks.
func reads(c grant.Command) bool {
	words, ok := readers[path.Base(c.Path)]
	if !ok || len(words) == 0 {
		return ok
	}
	i := slices.IndexFunc(c.Args, func(a string) bool { return !strings.HasPrefix(a, "-") })
	return i >= 0 && slices.Contains(words, c.Args[i])
}
