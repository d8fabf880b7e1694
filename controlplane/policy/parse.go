package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"curfew.internal/controlplane/policy/condition"
)

// Bounds of a folder.
const (
	maxFiles    = 200
	MaxBytes    = 256 << 10 // of a file
	maxDepth    = 20        // of brackets in brackets
	maxProblems = 100       // that are told at once
)

// A Problem is one mistake, with its place and its fix.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Field   string `json:"field,omitempty"` // such as roles.db-admin.max_duration
	Text    string `json:"text"`
	Fix     string `json:"fix,omitempty"`
	Warning bool   `json:"warning"` // the policy holds all the same
}

// String is the problem on one line, as compilers write theirs.
func (p Problem) String() string {
	s := ""
	if p.File != "" {
		s = fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Column)
	}
	if p.Warning {
		s += "warning: "
	}
	if p.Field != "" {
		s += strings.Trim(strconv.QuoteToGraphic(p.Field), `"`) + ": "
	}
	s += p.Text
	if p.Fix != "" {
		s += ": " + p.Fix
	}
	return s
}

// Parse reads a folder of files. The policy counts only if no problem is
// more than a warning.
func Parse(files map[string][]byte) (Policy, []Problem) {
	r := &reader{policy: Policy{
		Version: version(files), Labels: map[string][]string{}, Groups: map[string][]string{}, Directory: map[string]string{}, Rotations: map[string]Rotation{}, Calls: map[string]string{}, Roles: map[string]Role{},
		Places: map[string]Place{}, Files: files,
	}, unsure: map[string]bool{}}
	if len(files) == 0 || len(files) > maxFiles {
		r.problems = append(r.problems, Problem{Text: fmt.Sprintf("%d files that end in .yaml", len(files)), Fix: fmt.Sprintf("a policy has 1 to %d", maxFiles)})
	}
	sections := map[string][]section{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		r.file = name
		for _, s := range r.sections(files[name]) {
			sections[s.name] = append(sections[s.name], s)
		}
	}
	// What others refer to is read first, whichever file it is in.
	for _, step := range []struct {
		name string
		read func(ast.Node)
	}{{"labels", r.labels}, {"groups", r.groups}, {"roles", r.roles}, {"production", r.production}, {"eligible", r.eligible}, {"apart", r.apart}} {
		for _, s := range sections[step.name] {
			r.file = s.file
			step.read(s.node)
		}
	}
	if len(r.policy.Roles) == 0 && len(r.problems) == 0 {
		// A file that is being written is empty for a moment: taken for a
		// policy, it would end every grant of the fleet.
		r.problems = append(r.problems, Problem{
			File: slices.Min(slices.Collect(maps.Keys(files))), Line: 1, Column: 1, Field: "roles",
			Text: "no role stands in the policy", Fix: "write one at least; to end everything, revoke the grants",
		})
	}
	mistakes := r.problems
	for _, p := range r.policy.advice() {
		// One thing at a time: it may look different when it is mended.
		if !slices.ContainsFunc(mistakes, func(m Problem) bool { return m.File == p.File && m.Line == p.Line && m.Field == p.Field }) {
			r.problems = append(r.problems, p)
		}
	}
	return r.verdict()
}

// verdict sorts what was found. A folder with a mistake is no policy at all,
// so that nobody can act on half of one.
func (r *reader) verdict() (Policy, []Problem) {
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	policy := r.policy
	if !Holds(r.problems) {
		policy = Policy{}
	}
	if more := len(r.problems) - maxProblems; more > 0 {
		r.problems = append(r.problems[:maxProblems:maxProblems], Problem{
			File: r.problems[maxProblems].File, Line: 1, Column: 1, Text: fmt.Sprintf("and %d problems more", more), Fix: "mend these first",
		})
	}
	return policy, r.problems
}

// Holds reports whether the problems leave a policy that counts.
func Holds(problems []Problem) bool {
	return !slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning })
}

// A section is one of the top keys of a file.
type section struct {
	file, name string
	node       ast.Node
}

type reader struct {
	policy   Policy
	problems []Problem
	file     string
	unsure   map[string]bool     // roles of which not all approvers could be read
	compiler *condition.Compiler // of conditions, once one is met
}

func (r *reader) wrong(n ast.Node, field, text, fix string) {
	at := r.place(n)
	r.problems = append(r.problems, Problem{File: at.File, Line: at.Line, Column: at.Column, Field: field, Text: text, Fix: fix})
}

func (r *reader) place(n ast.Node) Place {
	at := Place{File: r.file, Line: 1, Column: 1}
	if n != nil && n.GetToken() != nil && n.GetToken().Position != nil {
		at.Line, at.Column = n.GetToken().Position.Line, n.GetToken().Position.Column
	}
	return at
}

// sections splits a file into its top keys.
func (r *reader) sections(b []byte) []section {
	if text, fix := Unreadable(b); text != "" {
		r.wrong(nil, "", text, fix)
		return nil
	}
	f, err := parser.ParseBytes(b, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return nil
	}
	var found []section
	for _, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		r.pairs(doc.Body, "", func(key string, k, v ast.Node) {
			if !slices.Contains([]string{"labels", "groups", "roles", "eligible", "apart", "production"}, key) {
				r.wrong(k, key, "unknown key", "a file has labels, groups, roles, eligible, apart and production")
				return
			}
			found = append(found, section{r.file, key, v})
		})
	}
	return found
}

// Unreadable says why a file is not even parsed: what does not show could
// hide what a reviewer has to see, and what is too large or too deep would
// keep whoever checks it busy for long.
func Unreadable(b []byte) (text, fix string) {
	if len(b) > MaxBytes {
		return "over 256 KiB", "split it"
	}
	if !utf8.Valid(b) {
		return "not valid UTF-8", "save it as UTF-8"
	}
	headers, content := 0, false
	for line := range strings.Lines(string(b)) {
		bare := strings.TrimSpace(line)
		if strings.HasPrefix(line, "---") && strings.Trim(bare, "-") == "" {
			if headers++; headers > 1 || content {
				return "a second document", "write one in each file"
			}
			continue
		}
		content = content || bare != "" && bare[0] != '#'
	}
	return hidden(string(b))
}

// hidden finds characters that do not show, and brackets that are too deep.
func hidden(s string) (text, fix string) {
	depth := 0
	for _, r := range s {
		switch {
		case r == '[' || r == '{':
			depth++
		case r == ']' || r == '}':
			depth--
		case unicode.Is(unicode.Cf, r) || unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t':
			return fmt.Sprintf("holds U+%04X, which does not show", r), "take it out"
		}
		if depth > maxDepth {
			return "brackets in brackets, too deep", "write it in lines"
		}
	}
	return "", ""
}

// syntax reports what is no YAML at all.
func (r *reader) syntax(err error) {
	p := Problem{File: r.file, Line: 1, Column: 1, Text: "this is no YAML", Fix: "check indentation and quotes here"}
	var at interface{ GetToken() *token.Token }
	if e, ok := err.(interface{ GetToken() *token.Token }); ok {
		at = e
	}
	if at != nil && at.GetToken() != nil && at.GetToken().Position != nil {
		p.Line, p.Column = at.GetToken().Position.Line, at.GetToken().Position.Column
	}
	r.problems = append(r.problems, p)
}

// pairs calls each for the keys of a mapping, once a key.
func (r *reader) pairs(n ast.Node, field string, each func(key string, k, v ast.Node)) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	case *ast.NullNode:
		return
	default:
		r.wrong(n, field, "not a mapping", "write `key: value` lines")
		return
	}
	seen := map[string]bool{}
	for _, v := range values {
		key, ok := scalar(v.Key)
		switch {
		case !ok:
			r.wrong(v.Key, field, "not a plain key", "write a word; anchors, aliases and merges are not read")
		case seen[key]:
			r.wrong(v.Key, join(field, key), "said twice", "keep one of them")
		default:
			seen[key] = true
			r.policy.Places[join(field, key)] = r.place(v.Key)
			each(key, v.Key, v.Value)
		}
	}
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

// scalar is the text of a plain value. Anchors, aliases, tags and merges are
// none: a policy says what it means where it stands.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	}
	return "", false
}
