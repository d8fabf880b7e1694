package doctor

import (
	"slices"
	"strings"
)

// SSHD is what sshd says of itself.
type SSHD struct {
	There    bool   // the host has one
	Err      string // why it does not say its settings
	Settings string // `sshd -T`
	CA       string // what is wrong with the file of the authority, or nothing
	CAKind   string // the type of the authority's key
}

// A need is a setting without which a granted person cannot log in.
type need struct{ key, value, spelling string }

var needs = []need{
	{"usepam", "yes", "UsePAM"},
	{"pubkeyauthentication", "yes", "PubkeyAuthentication"},
}

// first has sshd read a line before all others: of each option the first counts.
func first(line string) string {
	return "sed -i '1i " + line + "' /etc/ssh/sshd_config && systemctl reload ssh.service"
}

func sshd(f Facts) []Finding {
	s := f.SSHD
	if !s.There {
		return nil
	}
	if s.Err != "" {
		return []Finding{broken("sshd -t", "sshd does not take its configuration, and will not start again: %s", s.Err)}
	}
	var found []Finding
	if s.CA != "" && f.Wiring.Wired {
		found = append(found, broken(joining(f.Host), "sshd cannot trust our authority: %s", s.CA))
	}
	has := settings(s.Settings)
	for key, want := range map[string]string{
		"trustedusercakeys": "/etc/curfew/ssh_ca.pub", "authorizedprincipalsfile": "/run/curfew/ssh/principals/%u",
	} {
		if f.Wiring.Wired && f.Wiring.Lacks["/etc/ssh/sshd_config.d/curfew.conf"] == "" && !slices.Equal(has[key], []string{want}) {
			found = append(found, broken("grep -rniE '^[[:space:]]*"+key+"' /etc/ssh/sshd_config /etc/ssh/sshd_config.d",
				"sshd has %s %s in place of %s: another file sets it first", key, strings.Join(has[key], " "), want))
		}
	}
	for _, n := range needs {
		if v := has[n.key]; len(v) == 1 && v[0] != n.value {
			found = append(found, broken(first(n.spelling+" "+n.value),
				"sshd has %s %s, so nobody logs in under a grant", n.spelling, v[0]))
		}
	}
	if algorithms := strings.Join(has["casignaturealgorithms"], ","); s.CAKind != "" && algorithms != "" &&
		!slices.Contains(strings.Split(algorithms, ","), s.CAKind) {
		found = append(found, broken(first("CASignatureAlgorithms +"+s.CAKind),
			"sshd takes no certificate that an authority signed with %s, and ours does", s.CAKind))
	}
	for key, says := range map[string]string{"allowusers": "AllowUsers", "allowgroups": "AllowGroups"} {
		if len(has[key]) > 0 {
			found = append(found, warning("grep -rniE '^[[:space:]]*"+key+"' /etc/ssh/sshd_config /etc/ssh/sshd_config.d",
				"sshd has %s, which keeps out granted people whom it does not name", says))
		}
	}
	if slices.ContainsFunc(has["subsystem"], func(v string) bool { return strings.HasPrefix(v, "sftp internal-sftp") }) {
		found = append(found, warning("grep -rniE '^[[:space:]]*subsystem' /etc/ssh/sshd_config /etc/ssh/sshd_config.d",
			"sshd serves sftp itself, past the login shell: a role that demands recorded terminals does not keep it out, and no record tells of it"))
	}
	slices.SortFunc(found, func(a, b Finding) int { return strings.Compare(a.Says, b.Says) })
	return found
}

// settings reads what `sshd -T` says: a word and its value, some more than once.
func settings(text string) map[string][]string {
	has := map[string][]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key != "" {
			has[key] = append(has[key], value)
		}
	}
	return has
}
