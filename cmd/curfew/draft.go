package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"curfew.internal/controlplane/policy"
	"curfew.internal/grant"
)

// A draft is a roster of people's keys as people read and review it.
type draft struct {
	Fleet     string        `yaml:"fleet"`
	Version   uint64        `yaml:"version"`
	Expires   time.Time     `yaml:"expires"`
	Threshold uint64        `yaml:"threshold"` // owners who have to sign
	Owners    []string      `yaml:"owners"`    // as `curfew roster owner` prints them
	Party     string        `yaml:"party"`
	Origins   []string      `yaml:"origins"`
	Approvals uint64        `yaml:"approvals"` // that a signed grant has at least
	Accounts  []string      `yaml:"accounts"`  // besides root: commands as one of them need people's signatures
	All       bool          `yaml:"all"`       // every grant needs them
	Free      []draftFree   `yaml:"free"`      // roles that need none
	People    []draftPerson `yaml:"people"`
}

type draftFree struct {
	Role   string `yaml:"role"`
	Digest string `yaml:"digest"`
}

type draftPerson struct {
	Name     string     `yaml:"name"`
	Approves bool       `yaml:"approves"`
	Keys     []draftKey `yaml:"keys"`
}

type draftKey struct {
	ID     string `yaml:"id"`
	Public string `yaml:"public"`
}

// ownerPrefix tells an owner's public key from other texts that look like it.
const ownerPrefix = "curfew-owner-"

func ownerText(k ed25519.PublicKey) string {
	return ownerPrefix + base64.RawURLEncoding.EncodeToString(k)
}

func readOwner(text string) (ed25519.PublicKey, error) {
	rest, ok := strings.CutPrefix(text, ownerPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%.80q is no owner's key: it is what `curfew roster owner` prints", text)
	}
	return b, nil
}

func draftOf(r grant.Roster) draft {
	d := draft{
		Fleet: r.Fleet, Version: r.Version, Expires: r.Expires, Threshold: r.Threshold, Party: r.Party, Origins: r.Origins,
		Approvals: r.Approvals, Accounts: r.Accounts, All: r.All,
	}
	for _, o := range r.Owners {
		d.Owners = append(d.Owners, ownerText(o))
	}
	for _, f := range r.Free {
		d.Free = append(d.Free, draftFree{f.Role, hex.EncodeToString(f.Digest)})
	}
	for _, m := range r.Members {
		d.People = append(d.People, draftPerson{m.Name, m.Approves, draftKeys(m.Keys)})
	}
	return d
}

func draftKeys(keys []grant.Passkey) []draftKey {
	var all []draftKey
	for _, k := range keys {
		all = append(all, draftKey{base64.RawURLEncoding.EncodeToString(k.ID), base64.StdEncoding.EncodeToString(k.Public)})
	}
	return all
}

// readDraft reads what people wrote, and puts it into a roster's order.
func readDraft(text []byte) (grant.Roster, error) {
	var d draft
	if err := yaml.UnmarshalWithOptions(text, &d, yaml.Strict()); err != nil {
		return grant.Roster{}, fmt.Errorf("draft: %w", err)
	}
	r := grant.Roster{
		Fleet: d.Fleet, Version: d.Version, Expires: d.Expires.UTC().Truncate(time.Second), Threshold: d.Threshold, Party: d.Party, Origins: d.Origins,
		Approvals: d.Approvals, Accounts: d.Accounts, All: d.All,
	}
	var errs []error
	for _, text := range d.Owners {
		o, err := readOwner(text)
		errs = append(errs, err)
		r.Owners = append(r.Owners, o)
	}
	for _, f := range d.Free {
		sum, err := hex.DecodeString(f.Digest)
		errs = append(errs, err)
		r.Free = append(r.Free, grant.Free{Role: f.Role, Digest: sum})
	}
	for _, p := range d.People {
		m := grant.Member{Name: p.Name, Approves: p.Approves}
		for _, k := range p.Keys {
			id, err := base64.RawURLEncoding.Strict().DecodeString(k.ID)
			public, err2 := base64.StdEncoding.Strict().DecodeString(k.Public)
			errs = append(errs, err, err2)
			m.Keys = append(m.Keys, grant.Passkey{ID: id, Public: public})
		}
		r.Members = append(r.Members, m)
	}
	if err := errors.Join(errs...); err != nil {
		return grant.Roster{}, fmt.Errorf("draft: %w", err)
	}
	slices.Sort(r.Accounts)
	slices.SortFunc(r.Owners, func(a, b ed25519.PublicKey) int { return bytes.Compare(a, b) })
	slices.SortFunc(r.Free, func(a, b grant.Free) int { return strings.Compare(a.Role, b.Role) })
	slices.SortFunc(r.Members, func(a, b grant.Member) int { return strings.Compare(a.Name, b.Name) })
	return r, r.Check()
}

// free is the role as the policy has it now.
func free(p policy.Policy, name string) (draftFree, error) {
	role, ok := p.Roles[name]
	if !ok {
		return draftFree{}, fmt.Errorf("the policy has no role %s: take it off the list of free ones, or name it as it is", name)
	}
	if role.Signed {
		return draftFree{}, fmt.Errorf("role %s has `human_signatures: true` in the policy, and cannot be free of them", name)
	}
	return draftFree{name, hex.EncodeToString(role.Grant().Digest())}, nil
}
