package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"curfew.internal/agent/enforce"
	"curfew.internal/agent/host/tree"
	"curfew.internal/grant"
)

// The scope of an account is a chain of its own in one table of ours, which
// its packets are sent through by the uid of their socket (meta skuid). It lets
// some through as long as the uid is in a set, which the kernel takes it out of
// at the end, by the time that passes: with all of ours dead none gets out. The
// text of the scope is kept beside it, with what the kernel said it had when
// the scope was given: whatever it says later is compared with that.

// kernelHas stands between the two in the file.
const kernelHas = "\nthe kernel has:\n"

// observeScopes tells of each scope its text, if the kernel still has it.
func (h *Host) observeScopes(ctx context.Context, seen enforce.State) error {
	entries, err := os.ReadDir(h.path(scopeDir))
	errs := []error{ignore(err, fs.ErrNotExist)}
	now := ""
	if len(entries) > 0 {
		now, err = h.ruleset(ctx)
		errs = append(errs, err)
	}
	for _, e := range entries {
		text, whole, err := readWhole(h.path(scopeDir, e.Name()), 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		content, then, kept := strings.Cut(text, kernelHas)
		uid, _, _ := scopeOf(content)
		if !whole {
			content = spoiled
		} else if !kept || then == "" || about(now, uid) != then {
			content += "the kernel does not have it whole"
		}
		seen[enforce.Thing{Kind: enforce.Network, Name: e.Name()}] = content
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("look for network scopes: %w", err)
	}
	return nil
}

// ruleset is our table as the kernel has it; nothing if it has none.
func (h *Host) ruleset(ctx context.Context) (string, error) {
	out, err := h.run(ctx, "nft", "-n", "-s", "list", "table", "inet", "curfew")
	if err != nil && strings.Contains(out, "No such file") {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	return out, nil
}

// about is the part of our table that decides for an account: all but the
// chains of others, and of the map its own element.
func about(ruleset, uid string) string {
	var b strings.Builder
	mine := true
	elements := false
	for line := range strings.Lines(ruleset) {
		words := strings.Fields(line)
		if len(words) == 3 && words[0] == "chain" && words[2] == "{" {
			mine = words[1] == "out" || words[1] == chain(uid)
		}
		elements = elements || len(words) > 0 && words[0] == "elements"
		switch {
		case elements:
			for _, e := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune("={},", r) }) {
				e, _, _ = strings.Cut(e, " timeout ") // what is left differs from look to look
				if words := strings.Fields(e); len(words) > 0 && words[0] == uid {
					b.WriteString(strings.Join(words, " ") + "\n")
				}
			}
			elements = !strings.Contains(line, "}")
		case mine && len(words) > 0:
			b.WriteString(line)
		}
		if line == "\t}\n" {
			mine = true
		}
	}
	return b.String()
}

func chain(uid string) string { return "u" + uid }

// scopeOf takes the text of a scope apart.
func scopeOf(content string) (uid, end string, lines []string) {
	all := strings.Split(strings.TrimSpace(content), "\n")
	uid, end, _ = strings.Cut(all[0], " ")
	return uid, end, all[1:]
}

// applyScope gives or takes a scope. The whole table is made anew from the
// scopes that are kept, in one transaction of nftables: what somebody put into
// it, or took out of it, does not last.
func (h *Host) applyScope(ctx context.Context, s enforce.Step) error {
	name := s.Thing.Name
	if s.Op == enforce.Remove {
		if _, err := tree.Lstat(h.path(scopeDir, name)); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if _, err := h.load(ctx, name, ""); err != nil {
			return fmt.Errorf("remove %v: %w", s.Thing, err)
		}
		return tree.Remove(h.path(scopeDir), name)
	}
	uid, _, _ := scopeOf(s.Content)
	if _, err := h.scope(s.Content); err != nil {
		return fmt.Errorf("%v: %w", s.Thing, err)
	}
	now, err := h.load(ctx, name, s.Content)
	if err != nil {
		return fmt.Errorf("%v is not given: %w", s.Thing, err)
	}
	file := h.path(scopeDir, name)
	if info, err := tree.Lstat(file); err == nil && !info.Mode().IsRegular() {
		if err := tree.Remove(h.path(scopeDir), name); err != nil {
			return fmt.Errorf("clear the way for %v: %w", s.Thing, err)
		}
	}
	text := s.Content + kernelHas + about(now, uid)
	if err := renameio.WriteFile(file, []byte(text), 0o600, renameio.WithTempDir(h.path(freshDir)), renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("keep %v: %w", s.Thing, err)
	}
	return nil
}

// load has the kernel take the scopes that are kept, with content for that of
// name, and returns what it has then.
func (h *Host) load(ctx context.Context, name, content string) (string, error) {
	entries, err := os.ReadDir(h.path(scopeDir))
	if err != nil {
		return "", err
	}
	rules := map[string]string{}
	add := func(text string) {
		uid, _, _ := scopeOf(text)
		if r, err := h.scope(text); err == nil {
			rules[uid] = r
		} else if r, err := closed(uid); err == nil && rules[uid] == "" {
			// Spoiled, or of another version: until the plan removes or mends
			// it, the account is not without a limit.
			rules[uid] = r
		}
	}
	for _, e := range entries {
		text, whole, err := readWhole(h.path(scopeDir, e.Name()), 0o600)
		if err == nil && whole && e.Name() != name {
			text, _, _ = strings.Cut(text, kernelHas)
			add(text)
		}
	}
	add(content)
	all := "add table inet curfew\ndelete table inet curfew\n"
	if len(rules) > 0 {
		all += table
	}
	for _, uid := range slices.Sorted(maps.Keys(rules)) {
		all += rules[uid]
	}
	var out bytes.Buffer
	h.loads.mu.Lock()
	pid, err := h.start(ctx, strings.NewReader(all), &out, &out, []string{"nft", "-f", "-"})
	h.loads.done(pid)
	h.loads.mu.Unlock()
	if errors.Is(err, errStuck) {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(out.String()))
	}
	return h.ruleset(ctx)
}

const table = `add table inet curfew
add set inet curfew live { typeof meta skuid; flags timeout; }
add map inet curfew who { typeof meta skuid : verdict; }
add chain inet curfew out { type filter hook output priority 0; policy accept; }
add rule inet curfew out meta skuid vmap @who
`

// scope is the rules that limit an account to its destinations. Replies are
// let through and not what is established: a connection that was made before
// the scope does not outlive it.
func (h *Host) scope(content string) (string, error) {
	uid, end, lines := scopeOf(content)
	at, err := time.Parse(time.RFC3339, end)
	if err != nil {
		return "", fmt.Errorf("end %q: %w", end, err)
	}
	first, last, err := frame(uid)
	if err != nil {
		return "", err
	}
	c := chain(uid)
	var b strings.Builder
	b.WriteString(first)
	fmt.Fprintf(&b, "add rule inet curfew %s meta skuid != @live reject\n", c)
	fmt.Fprintf(&b, "add rule inet curfew %s ct direction reply accept\n", c)
	for _, l := range lines {
		d, err := grant.ParseDestination(l)
		if err != nil {
			return "", err
		}
		family := "ip"
		if d.Net.Addr().Is6() {
			family = "ip6"
		}
		port := "meta l4proto " + d.Protocol
		if d.Port != 0 {
			port = fmt.Sprintf("%s dport %d", d.Protocol, d.Port)
		}
		fmt.Fprintf(&b, "add rule inet curfew %s %s daddr %v %s accept\n", c, family, d.Net, port)
	}
	b.WriteString(last)
	if left := at.Sub(h.Clock.Now().Wall).Milliseconds(); left > 0 { // 0 would be for ever
		fmt.Fprintf(&b, "add element inet curfew live { %s timeout %dms }\n", uid, left)
	}
	return b.String(), nil
}

// closed is a scope without a destination.
func closed(uid string) (string, error) {
	first, last, err := frame(uid)
	return first + last, err
}

// frame is what stands before and behind an account's destinations.
func frame(uid string) (first, last string, err error) {
	if n, err := strconv.Atoi(uid); err != nil || n < grant.UIDMin || n > grant.UIDMax {
		return "", "", fmt.Errorf("uid %q is not one of ours", uid)
	}
	c := chain(uid)
	return fmt.Sprintf("add chain inet curfew %s\n", c),
		fmt.Sprintf("add rule inet curfew %[2]s reject\nadd element inet curfew who { %[1]s : jump %[2]s }\n", uid, c), nil
}
