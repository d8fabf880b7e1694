package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"

	"curfew.internal/agent/enforce"
	"curfew.internal/grant"
)

// The scope of an account is a chain of its own in one table of ours, which
// its packets are sent through by the uid of their socket (meta skuid). The
// text of the scope is kept beside it, so that it can be compared.

// observeScopes tells of each scope its text, if the kernel still has it.
func (h *Host) observeScopes(ctx context.Context, seen enforce.State) error {
	entries, err := os.ReadDir(h.path(scopeDir))
	errs := []error{ignore(err, fs.ErrNotExist)}
	for _, e := range entries {
		content, whole, err := readWhole(h.path(scopeDir, e.Name()), 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		if !whole {
			content = spoiled
		} else if !h.limited(ctx, content) {
			content += "the kernel does not have it whole"
		}
		seen[enforce.Thing{Kind: enforce.Network, Name: e.Name()}] = content
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("look for network scopes: %w", err)
	}
	return nil
}

// limited says whether the kernel holds an account to its scope.
func (h *Host) limited(ctx context.Context, content string) bool {
	uid, lines := scopeOf(content)
	out, err := h.run(ctx, "nft", "list", "chain", "inet", "curfew", chain(uid))
	if err != nil || strings.Count(out, " accept") != len(lines)+1 || !strings.Contains(out, "reject") {
		return false
	}
	who, err := h.run(ctx, "nft", "list", "map", "inet", "curfew", "who")
	return err == nil && strings.Contains(who, "jump "+chain(uid))
}

func chain(uid string) string { return "u" + uid }

func scopeOf(content string) (uid string, lines []string) {
	all := strings.Split(strings.TrimSpace(content), "\n")
	return all[0], all[1:]
}

// applyScope gives or takes a scope, in one transaction of nftables.
func (h *Host) applyScope(ctx context.Context, s enforce.Step) error {
	file := h.path(scopeDir, s.Thing.Name)
	if s.Op == enforce.Remove {
		text, _, err := readWhole(file, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at %v: %w", s.Thing, err)
		}
		uid, _ := scopeOf(text)
		if _, err := strconv.ParseUint(uid, 10, 32); err == nil {
			if out, err := h.feed(ctx, unscope(uid), "nft", "-f", "-"); err != nil {
				return fmt.Errorf("remove %v: %w: %s", s.Thing, err, strings.TrimSpace(out))
			}
		}
		return removeTree(h.path(scopeDir), s.Thing.Name)
	}
	rules, err := scope(s.Content)
	if err != nil {
		return fmt.Errorf("%v: %w", s.Thing, err)
	}
	if out, err := h.feed(ctx, rules, "nft", "-f", "-"); err != nil {
		return fmt.Errorf("%v is not given: %w: %s", s.Thing, err, strings.TrimSpace(out))
	}
	if info, err := os.Lstat(file); err == nil && !info.Mode().IsRegular() {
		if err := removeTree(h.path(scopeDir), s.Thing.Name); err != nil {
			return fmt.Errorf("clear the way for %v: %w", s.Thing, err)
		}
	}
	if err := renameio.WriteFile(file, []byte(s.Content), 0o600, renameio.WithTempDir(h.path(freshDir)), renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("keep %v: %w", s.Thing, err)
	}
	return nil
}

const table = `add table inet curfew
add map inet curfew who { typeof meta skuid : verdict; }
add chain inet curfew out { type filter hook output priority 0; policy accept; }
flush chain inet curfew out
add rule inet curfew out meta skuid vmap @who
`

// scope is the ruleset that limits an account to its destinations.
func scope(content string) (string, error) {
	uid, lines := scopeOf(content)
	if n, err := strconv.Atoi(uid); err != nil || n < grant.UIDMin || n > grant.UIDMax {
		return "", fmt.Errorf("uid %q is not one of ours", uid)
	}
	c := chain(uid)
	var b strings.Builder
	fmt.Fprintf(&b, "%sadd chain inet curfew %s\nflush chain inet curfew %s\n", table, c, c)
	fmt.Fprintf(&b, "add rule inet curfew %s ct state established,related accept\n", c)
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
	fmt.Fprintf(&b, "add rule inet curfew %s reject\n", c)
	fmt.Fprintf(&b, "add element inet curfew who { %s : jump %s }\n", uid, c)
	return b.String(), nil
}

// unscope takes an account's chain away, also one that is gone by half.
func unscope(uid string) string {
	c := chain(uid)
	return fmt.Sprintf("%sadd chain inet curfew %s\nadd element inet curfew who { %s : jump %s }\n"+
		"delete element inet curfew who { %s : jump %s }\nflush chain inet curfew %s\ndelete chain inet curfew %s\n",
		table, c, uid, c, uid, c, c, c)
}
