package doctor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Sudo is what sudo reads here.
type Sudo struct {
	Err     string            // why it cannot be asked
	Version string            // such as 1.9.13p3
	Rust    bool              // it is sudo-rs, which counts its versions anew
	Wrong   string            // what `visudo -c` finds wrong, or nothing
	Rules   string            // all of it, as `cvtsudoers -e -f json` tells it
	Files   map[string]string // what it is written in: file, text
}

// oldest is the first sudo that knows NOTAFTER, which ends our rules.
var oldest = []int{1, 8, 20}

// A setting changes what our rules, or our PAM lines, come to. Is is the value that does, as JSON has it; empty: any.
type setting struct {
	is       string
	severity Severity
	says     string
}

var harmful = map[string]setting{
	"pam_acct_mgmt":        {"false", Broken, "sudo does not ask PAM whether an account may act: the door stands open"},
	"pam_session":          {"false", Broken, "sudo opens no session, so what it starts is not under record"},
	"pam_service":          {"", Broken, "sudo asks another PAM service than the one that is wired"},
	"pam_login_service":    {"", Broken, "sudo -i asks another PAM service than the one that is wired"},
	"ignore_local_sudoers": {"true", Broken, "sudo passes over the rules of grants"},
	"authenticate":         {"false", Warning, "sudo asks nobody for a password: standing rules work for whoever sits down at a terminal"},
	"targetpw":             {"true", Warning, "sudo asks for the password of the account that is entered"},
	"rootpw":               {"true", Warning, "sudo asks for root's password"},
	"runaspw":              {"true", Warning, "sudo asks for the password of another account"},
	"runas_default":        {"", Warning, "without -u, sudo enters another account than root, which rules of grants may not name"},
	"requiretty":           {"true", Warning, "sudo refuses `curfew ssh HOST -- sudo COMMAND`, which has no terminal"},
}

// rules is what we read of cvtsudoers(1).
type rules struct {
	Defaults []struct {
		Options []map[string]json.RawMessage
	}
	Specs []struct {
		Users    []map[string]json.RawMessage `json:"User_List"`
		Commands []commands                   `json:"Cmnd_Specs"`
	} `json:"User_Specs"`
}

type commands struct {
	Options  []map[string]json.RawMessage
	Commands []command
}

type command struct {
	Command string `json:"command"`
	Negated bool   `json:"negated"`
}

func sudo(f Facts) []Finding {
	s := f.Sudo
	if s.Err != "" {
		return []Finding{broken("apt-get install --reinstall sudo", "sudo cannot be asked: %s", s.Err)}
	}
	var found []Finding
	if s.Rust {
		return []Finding{broken("update-alternatives --config sudo", "sudo is sudo-rs %s, which does not know NOTAFTER and takes no rule of a grant: choose sudo.ws, which is the package sudo", s.Version)}
	}
	if v := numbers(s.Version); len(v) > 0 && slices.Compare(v, oldest) < 0 {
		found = append(found, broken("apt-get install sudo", "sudo %s does not know NOTAFTER, and refuses the rules of grants: 1.8.20 is the first that does", s.Version))
	}
	if s.Wrong != "" {
		return append(found, wrong(s.Wrong))
	}
	var all rules
	if err := json.Unmarshal([]byte(s.Rules), &all); err != nil {
		return append(found, warning("cvtsudoers -e -f json /etc/sudoers", "what sudo reads could not be looked through: %s", err))
	}
	for _, d := range all.Defaults {
		for _, o := range d.Options {
			found = append(found, s.defaults(o)...)
		}
	}
	return append(found, s.standing(all, f.Wiring)...)
}

// defaults judges one option, and finds where it is written.
func (s Sudo) defaults(option map[string]json.RawMessage) []Finding {
	var found []Finding
	for name, value := range option {
		h, known := harmful[name]
		if !known || h.is != "" && h.is != string(value) {
			continue
		}
		file, line, alone := s.where(name)
		mend := "visudo -f " + quote(file)
		if alone {
			mend = fmt.Sprintf("sed -i '%ds/^/#/' %s", line, quote(file))
		}
		found = append(found, Finding{
			Severity: h.severity, Mend: mend,
			Says: fmt.Sprintf("%s:%d: Defaults %s %s: %s", file, line, name, value, h.says),
		})
	}
	return found
}

// where finds the line of a Defaults option, and says whether that line sets
// it alone.
func (s Sudo) where(option string) (file string, line int, alone bool) {
	form := regexp.MustCompile(`^\s*Defaults\S*\s.*\b` + regexp.QuoteMeta(option) + `\b`)
	for _, name := range sorted(s.Files) {
		n := 0
		for text := range strings.Lines(s.Files[name]) {
			if n++; form.MatchString(text) {
				return name, n, !strings.ContainsAny(text, ",\\")
			}
		}
	}
	return "/etc/sudoers", 1, false
}

// standing lists who may run everything without a password, and without a
// grant. Where the door refuses her, it is no finding.
func (s Sudo) standing(all rules, w Wiring) []Finding {
	var found []Finding
	for _, spec := range all.Specs {
		if !slices.ContainsFunc(spec.Commands, everything) {
			continue
		}
		for _, name := range named(spec.Users) {
			if name == "root" || w.Enforce && name != "%"+w.Breakglass {
				continue
			}
			file := s.ruleOf(name)
			found = append(found, warning("visudo -f "+quote(file), "%s: %s may run everything without a password and without a grant", file, name))
		}
	}
	slices.SortFunc(found, func(a, b Finding) int { return cmp.Compare(a.Says, b.Says) })
	return found
}

// everything says whether a part of a rule gives all commands without a
// password. What ends by NOTAFTER is a grant's.
func everything(c commands) bool {
	free, ours := false, false
	for _, o := range c.Options {
		free = free || string(o["authenticate"]) == "false"
		ours = ours || o["notafter"] != nil
	}
	return free && !ours && slices.ContainsFunc(c.Commands, func(one command) bool { return one.Command == "ALL" && !one.Negated })
}

// named are the users of a rule, as sudoers writes them.
func named(users []map[string]json.RawMessage) []string {
	var names []string
	for _, u := range users {
		for kind, value := range u {
			name := strings.Trim(string(value), `"`)
			if kind == "usergroup" {
				name = "%" + name
			}
			names = append(names, name)
		}
	}
	return names
}

// ruleOf is the file whose rule names somebody.
func (s Sudo) ruleOf(name string) string {
	for _, file := range sorted(s.Files) {
		for line := range strings.Lines(s.Files[file]) {
			if words := strings.Fields(line); len(words) > 0 && slices.Contains(strings.Split(words[0], ","), name) {
				return file
			}
		}
	}
	return "/etc/sudoers"
}

// place is how visudo names one: FILE:LINE:COLUMN: what, or FILE: what.
var place = regexp.MustCompile(`^(?:>>> )?(/[^\s:]+):(?:(\d+):)?`)

// wrong is what visudo found. A file beside sudoers is passed over under a
// name with a dot; all of sudo is broken as long as it is not.
func wrong(said string) Finding {
	first := oneLine(said)
	at := place.FindStringSubmatch(first)
	switch {
	case at == nil:
		return broken("visudo -c", "sudo does not take its rules, and refuses everybody: %s", first)
	case at[1] == "/etc/sudoers":
		return broken("visudo", "sudo does not take its rules, and refuses everybody: %s", first)
	case at[1] == "/etc/sudoers.d/curfew":
		return broken(install, "sudo does not take its rules: %s", first)
	case strings.Contains(first, "owned by") || strings.Contains(first, "permissions"):
		return broken("chown root:root "+quote(at[1])+" && chmod 0440 "+quote(at[1]), "sudo passes over a file of its rules: %s", first)
	}
	return broken("mv "+quote(at[1])+" "+quote(at[1]+".broken"), "sudo does not take all of its rules: %s; under a name with a dot it is passed over, and can be put right", first)
}

// numbers are those of a version: 1.9.13p3 is 1, 9, 13.
func numbers(version string) []int {
	var all []int
	for part := range strings.SplitSeq(version, ".") {
		digits := part
		if i := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
			digits = part[:i]
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			break
		}
		all = append(all, n)
	}
	return all
}
