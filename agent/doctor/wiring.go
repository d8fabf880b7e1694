package doctor

import (
	"slices"
	"strings"
)

// Wiring is how the host's programs come to ask the agent.
type Wiring struct {
	Wired      bool              // `curfew-agent install` was run
	Enforce    bool              // sudo and su for live grants alone
	Breakglass string            // the group that may pass all the same
	NoGroup    bool              // there is no such group
	Module     bool              // PAM finds pam_curfew.so
	Lacks      map[string]string // file: what is wrong with it
	Gone       []string          // services whose file is not there any more
	Hard       []string          // services whose lines keep everybody out if the module is gone
	NoRules    bool              // /etc/sudoers does not include its folder
	NoConfig   bool              // sshd_config does not include its folder
}

const install = "curfew-agent install"

// packageOf has the service's file in /etc/pam.d.
var packageOf = map[string]string{"sshd": "openssh-server", "sudo": "sudo", "sudo-i": "sudo", "su": "util-linux", "su-l": "util-linux", "login": "login"}

func wiring(f Facts) []Finding {
	w := f.Wiring
	var found []Finding
	if !w.Module {
		found = append(found, broken("apt-get install --reinstall curfew-agent",
			"pam_curfew.so is in none of the folders that PAM loads from, so nobody asks the agent"))
	}
	if w.NoRules {
		// visudo as an editor would open each file that is included, grants' rules too.
		found = append(found, broken("cp -p /etc/sudoers /etc/sudoers.new && echo '@includedir /etc/sudoers.d' >>/etc/sudoers.new && visudo -cf /etc/sudoers.new && mv /etc/sudoers.new /etc/sudoers",
			"/etc/sudoers does not read /etc/sudoers.d, so no rule of a grant counts"))
	}
	if w.NoConfig {
		found = append(found, broken(first("Include /etc/ssh/sshd_config.d/*.conf"),
			"sshd_config does not read /etc/ssh/sshd_config.d, so no certificate of ours opens an account"))
	}
	if !w.Wired {
		return append(found, broken(install, "this host is not wired: sshd, sudo and su do not ask the agent"))
	}
	for _, file := range sorted(w.Lacks) {
		mend := install
		if s := strings.TrimPrefix(file, "/etc/pam.d/"); slices.Contains(w.Gone, s) {
			mend = "apt-get install --reinstall -o Dpkg::Options::=--force-confmiss " + packageOf[s] // the agent wires it then
		}
		found = append(found, broken(mend, "%s: %s", file, w.Lacks[file]))
	}
	if len(w.Hard) > 0 {
		found = append(found, warning(install, "the lines of an earlier version in %s keep everybody out, root as well, if pam_curfew.so is deleted", strings.Join(w.Hard, ", ")))
	}
	switch {
	case !w.Enforce:
		found = append(found, note("curfew-agent install --enforce --breakglass GROUP",
			"sudo and su without a grant are recorded and not refused: this host only observes"))
	case w.Breakglass == "":
		found = append(found, warning("groupadd -f breakglass && curfew-agent install --enforce --breakglass breakglass",
			"sudo is for live grants alone and no group may pass without one: with the control plane away, root's console is the only way in"))
	case w.NoGroup:
		found = append(found, warning("groupadd "+quote(w.Breakglass), "the break-glass group %s is not there: with the control plane away, root's console is the only way in", w.Breakglass))
	}
	return found
}

func sorted(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TTY marks a question of the doctor's at the door, and Answer is what the
// agent says to it, beside its verdict: so it shows that PAM came to ask.
const (
	TTY    = "curfew-doctor"
	Answer = "curfew: the door answers"
)

// PAM is what real transactions came to: the account phase of each service,
// for root and for somebody who is nobody's grant.
type PAM struct {
	Err   string
	Tries []Try
}

// A Try is one of them.
type Try struct {
	Service string
	User    string
	Code    int    // PAM's; 0 is success
	Text    string // what PAM calls the code
	Said    string // the messages of modules
}

// faults are the codes that say that a stack does not work, whoever comes:
// a module, or a file of one, is not there or not whole (_pam_types.h).
var faults = []int{1, 2, 3, 4, 26, 28}

func pam(f Facts) []Finding {
	if f.PAM.Err != "" {
		return []Finding{warning("apt-get install --reinstall curfew-agent", "PAM could not be tried: %s", f.PAM.Err)}
	}
	var found []Finding
	for _, t := range f.PAM.Tries {
		file := "/etc/pam.d/" + t.Service
		asked := f.Wiring.Wired && f.Wiring.Module && f.alive() && f.Wiring.Lacks[file] == ""
		switch {
		case slices.Contains(faults, t.Code):
			found = append(found, broken("grep -rhoE 'pam_[a-z0-9_]+[.]so' "+file+" /etc/pam.d/common-* | sort -u | while read m; do ls /lib/*/security/$m >/dev/null; done",
				"the stack of %s fails for %s: %s; a module that it names may be missing", t.Service, t.User, t.Text))
		case t.User == "root" && t.Code != 0:
			found = append(found, warning("cat "+file, "PAM refuses root by way of %s: %s", t.Service, t.Text))
		case t.User != "root" && asked && !strings.Contains(t.Said, Answer):
			found = append(found, broken(install+" && systemctl restart curfew-agent.service", "%s does not come to ask the agent, though its lines say so", t.Service))
		}
	}
	return found
}
