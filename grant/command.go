package grant

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Command is what a role lets people run with sudo. sudo compares arguments
// joined by spaces: who may run `id a b` may run `id "a b"` as well.
type Command struct {
	Path    string   // absolute, clean, no pattern
	Args    []string // exactly these; none: the command alone
	AnyArgs bool     // any arguments, in place of Args
}

// Characters that are safe as they stand or behind a backslash in a sudoers
// command (sudoers(5), "Other special characters and reserved words"). What
// sudo reads as a pattern, quote or negation, and white space inside an
// argument, has no spelling that every version of sudo takes literally: it is
// refused.
var (
	commandPath = regexp.MustCompile(`^(/[A-Za-z0-9._+@-]+)+$`)
	commandArg  = regexp.MustCompile(`^[A-Za-z0-9._+@/,:=#%~{}-]+$`)
)

// editors of files have their own keyword in sudoers, and their own holes.
var refusedNames = []string{"sudoedit", "sudo", "sudo-i", "su"}

// ParseCommand reads a command as a policy writes it: an absolute path, then
// its exact arguments, or `*` for any.
func ParseCommand(s string) (Command, error) {
	if s == "ALL" {
		return Command{}, errors.New("ALL as a command: write `any_command: true` for a role that may run everything")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Command{}, fmt.Errorf("command %s: holds a control character", quote(s))
	}
	words := strings.Fields(s)
	if len(words) == 0 {
		return Command{}, fmt.Errorf("command: %w", errEmpty)
	}
	c := Command{Path: words[0], Args: words[1:]}
	if slices.Equal(c.Args, []string{"*"}) {
		c.Args, c.AnyArgs = nil, true
	}
	if len(c.Args) == 0 {
		c.Args = nil
	}
	return c, c.Check()
}

// Check says whether c can be carried to sudoers without changing its meaning.
func (c Command) Check() error {
	if !commandPath.MatchString(c.Path) || path.Clean(c.Path) != c.Path || len(c.Path) > 1024 {
		return fmt.Errorf("command %s: the path is absolute and holds letters, digits and . _ + @ - only", quote(c.Path))
	}
	if slices.Contains(refusedNames, path.Base(c.Path)) {
		return fmt.Errorf("command %s: sudo cannot scope this program: name what it is to run", quote(c.Path))
	}
	if c.AnyArgs && len(c.Args) > 0 {
		return fmt.Errorf("command %s: `*` stands alone, in place of all arguments", quote(c.Path))
	}
	for _, a := range c.Args {
		if !commandArg.MatchString(a) {
			return fmt.Errorf("command %s: argument %s holds a character that sudo reads as more than itself: "+
				"use `*` alone for any arguments, or a script of your own without any", quote(c.Path), quote(a))
		}
	}
	if len(c.Args) > 64 || len(strings.Join(c.Args, " ")) > 4096 {
		return fmt.Errorf("command %s: over 64 arguments or 4096 bytes of them", quote(c.Path))
	}
	return nil
}

// Matches reports whether argv is what the command allows.
func (c Command) Matches(argv []string) bool {
	return len(argv) > 0 && argv[0] == c.Path && (c.AnyArgs || slices.Equal(argv[1:], c.Args))
}

// String is the form that [ParseCommand] reads.
func (c Command) String() string {
	if c.AnyArgs {
		return c.Path + " *"
	}
	return strings.Join(append([]string{c.Path}, c.Args...), " ")
}

// A Destination is where an account may connect.
type Destination struct {
	Protocol string // "tcp" or "udp"
	Net      netip.Prefix
	Port     uint16 // 0: every port
}

// ParseDestination reads proto://ADDRESS[/BITS][:PORT]; an IPv6 address with
// a port stands in brackets.
func ParseDestination(s string) (Destination, error) {
	wrong := fmt.Errorf("destination %s: write it like tcp://10.0.0.0/24:5432", quote(s))
	proto, rest, ok := strings.Cut(s, "://")
	if !ok {
		return Destination{}, wrong
	}
	d := Destination{Protocol: proto}
	host := rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "]") &&
		(strings.HasPrefix(rest, "[") || strings.Count(rest, ":") == 1) {
		port, err := strconv.ParseUint(rest[i+1:], 10, 16)
		if err != nil || port == 0 {
			return Destination{}, wrong
		}
		host, d.Port = rest[:i], uint16(port)
	}
	host = strings.NewReplacer("[", "", "]", "").Replace(host)
	prefix, err := netip.ParsePrefix(host)
	if err != nil {
		addr, aerr := netip.ParseAddr(host)
		if aerr != nil {
			return Destination{}, wrong
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	d.Net = prefix
	return d, d.Check()
}

// Check says whether d is a destination in its one spelling.
func (d Destination) Check() error {
	if d.Protocol != "tcp" && d.Protocol != "udp" {
		return fmt.Errorf("destination: protocol %s is neither tcp nor udp", quote(d.Protocol))
	}
	if !d.Net.IsValid() || d.Net != d.Net.Masked() {
		return fmt.Errorf("destination %v: the address has bits behind its prefix: write %v", d.Net, d.Net.Masked())
	}
	if d.Net.Addr().Is4In6() || d.Net.Addr().Zone() != "" {
		return fmt.Errorf("destination %v: write a plain IPv4 or IPv6 address", d.Net)
	}
	return nil
}

// String is the form that [ParseDestination] reads.
func (d Destination) String() string {
	host := d.Net.String()
	if d.Port == 0 {
		return d.Protocol + "://" + host
	}
	if d.Net.Addr().Is6() {
		host = "[" + host + "]"
	}
	return d.Protocol + "://" + host + ":" + strconv.Itoa(int(d.Port))
}
