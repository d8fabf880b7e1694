package doctor

import (
	"slices"
	"strings"
)

// Names is how the host comes to know the accounts of grants.
type Names struct {
	NSSwitch string            // the text of nsswitch.conf
	Err      string            // why it cannot be read
	Systemd  string            // what is wrong with nss-systemd itself, or nothing
	Unknown  map[string]string // accounts that stand and do not resolve: why
	Cache    string            // the unit of a name cache that runs
}

const askSystemd = `sed -i -E '/^(passwd|group|shadow):/{/systemd/!s/[[:space:]]*(#.*)?$/ systemd \1/}' /etc/nsswitch.conf`

func names(f Facts) []Finding {
	n := f.Names
	var found []Finding
	if n.Err != "" {
		found = append(found, broken("apt-get install --reinstall libc6 base-files", "how names are looked up is not known: %s", n.Err))
	}
	var missing, shut []string
	for _, db := range []string{"passwd", "group", "shadow"} {
		switch asks, closed := source(n.NSSwitch, db); {
		case n.Err != "":
		case !asks:
			missing = append(missing, db)
		case closed:
			shut = append(shut, db)
		}
	}
	if len(missing) > 0 {
		found = append(found, broken(askSystemd, "/etc/nsswitch.conf does not ask systemd for %s, so no account of a grant is known", strings.Join(missing, ", ")))
	}
	if len(shut) > 0 {
		found = append(found, broken(`sed -i -E '/^(passwd|group|shadow):/s/\[[^]]*=return\] *//g' /etc/nsswitch.conf`,
			"/etc/nsswitch.conf gives up on %s before it asks systemd, so no account of a grant is known", strings.Join(shut, ", ")))
	}
	if n.Systemd != "" {
		found = append(found, broken("apt-get install --reinstall libnss-systemd", "nss-systemd does not answer: %s", n.Systemd))
	}
	if len(found) == 0 {
		for _, name := range sorted(n.Unknown) {
			found = append(found, broken("userdbctl user "+quote(name), "%s has a grant, and her account does not resolve: %s", name, n.Unknown[name]))
		}
	}
	if n.Cache != "" {
		found = append(found, warning("systemctl disable --now "+quote(n.Cache), "%s keeps names that it was asked for: an account may be missing after its grant begins, or seem to be there after its end", n.Cache))
	}
	return found
}

// source says whether a database asks systemd, and whether an action before
// that may end the look-up when a name is not found (nsswitch.conf(5)).
func source(text, db string) (asks, closed bool) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		name, from, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != db {
			continue
		}
		words := strings.Fields(from)
		at := slices.Index(words, "systemd")
		if at < 0 {
			return false, false
		}
		before := strings.ToUpper(strings.Join(words[:at], " "))
		return true, strings.Contains(before, "NOTFOUND=RETURN")
	}
	return false, false
}
