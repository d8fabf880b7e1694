package grant

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Names are the only free text that reaches sudoers, user records and paths:
// their alphabets hold nothing that any of those treats as special.
var (
	personName  = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,30}$`)
	accountName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	hostName    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	roleName    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	idForm      = regexp.MustCompile(`^[a-z]{1,3}-[a-z2-7]{16}$`)
)

// reserved are names that a system account has or that some program reads as
// more than a name. The host refuses a name that it has an account for as
// well; this list keeps the clearest mistakes out of the fleet.
var reserved = []string{
	"adm", "admin", "administrator", "all", "at", "atjobs", "atspool", "audit", "avahi", "backup", "bin", "cron",
	"crontabs", "curfew", "daemon", "dbus", "disk", "docker", "everybody", "ftp", "games", "gnats", "halt", "irc", "kmem",
	"list", "lp", "lxd", "mail", "man", "messagebus", "mysql", "news", "nobody", "nogroup", "operator", "polkitd",
	"postgres", "proxy", "root", "shadow", "shutdown", "sshd", "staff", "sudo", "sync", "sys", "syslog", "systemd",
	"systemd-network", "systemd-resolve", "systemd-timesync", "tabs", "toor", "tty", "users", "utmp", "uucp", "video",
	"voice", "wheel", "www-data",
}

// ours begins the names of our own accounts on hosts, and those by which the
// record tells what a program did, or a directory, from what a person did.
const ours = "curfew-"

// CheckPerson says whether name can be a person's account name on every host.
func CheckPerson(name string) error {
	if !personName.MatchString(name) {
		return fmt.Errorf("person %s: a name has 1 to 31 of a-z, 0-9, _ and -, and begins with a letter", quote(name))
	}
	if slices.Contains(reserved, name) || strings.HasPrefix(name, ours) {
		return fmt.Errorf("person %s: the name belongs to the system", quote(name))
	}
	return nil
}

// CheckAccount says whether name can be an account that commands run as.
func CheckAccount(name string) error {
	if !accountName.MatchString(name) || name == "all" {
		return fmt.Errorf("account %s: a name has 1 to 31 of a-z, 0-9, _ and -, and begins with a letter or _", quote(name))
	}
	return nil
}

// CheckHost says whether name can be a host's name: one DNS label.
func CheckHost(name string) error {
	if !hostName.MatchString(name) {
		return fmt.Errorf("host %s: a name has 1 to 63 of a-z, 0-9 and -, and neither begins nor ends with -", quote(name))
	}
	return nil
}

// CheckFleet says whether name can be the fleet's name, which has the form of
// a host's.
func CheckFleet(name string) error {
	if !hostName.MatchString(name) {
		return fmt.Errorf("fleet %s: a name has 1 to 63 of a-z, 0-9 and -, and neither begins nor ends with -", quote(name))
	}
	return nil
}

// CheckRole says whether name can be a role's name.
func CheckRole(name string) error {
	if !roleName.MatchString(name) {
		return fmt.Errorf("role %s: a name has 1 to 63 of a-z, 0-9 and -, and neither begins nor ends with -", quote(name))
	}
	return nil
}

// CheckID says whether id has the form of ours: a prefix, a dash, and 80 bits
// in lower-case base32. It is a file name that sudo does not skip.
func CheckID(id string) error {
	if !idForm.MatchString(id) {
		return fmt.Errorf("id %s: an id looks like g-abcdefghijklmnop", quote(id))
	}
	return nil
}

// CheckText says whether text that people wrote can be carried: it is bounded
// (in runes), UTF-8, and free of characters that a terminal or a page would
// act on or that hide what stands there.
func CheckText(what, text string, most int) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s: not valid UTF-8", what)
	}
	if utf8.RuneCountInString(text) > most {
		return fmt.Errorf("%s: over %d characters", what, most)
	}
	for _, r := range text {
		// Cf holds the bidirectional overrides, zero-width characters and tags.
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) {
			return fmt.Errorf("%s: holds U+%04X, which does not show: take it out", what, r)
		}
	}
	return nil
}

// quote shows a name that may be hostile, cut to what fits on a line.
func quote(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return fmt.Sprintf("%q", s)
}

var errEmpty = errors.New("empty")
