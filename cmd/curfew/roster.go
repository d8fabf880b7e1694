package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"curfew.internal/dsse"
	"curfew.internal/grant"
	"curfew.internal/keyfile"
	"curfew.internal/wire/api"
)

type rosterCmd struct {
	Owner   rosterOwnerCmd   `cmd:"" help:"Make an owner's key, to be kept offline, and print its public half."`
	Draft   rosterDraftCmd   `cmd:"" help:"Draw up the next roster from the present one and from the passkeys that the server knows."`
	Make    rosterMakeCmd    `cmd:"" help:"Check a draft, and make what owners sign of it."`
	Sign    rosterSignCmd    `cmd:"" help:"Sign a roster as an owner; the first one also with the fleet's root key."`
	Show    rosterShowCmd    `cmd:"" help:"Show what a roster says, and how many of its owners have signed it."`
	Publish rosterPublishCmd `cmd:"" help:"Hand a signed roster to the server, which passes it on to every host."`
}

type rosterOwnerCmd struct {
	File string `arg:"" help:"Where the private half goes. A file that is there is not written over."`
}

// Run makes an owner's key.
func (c rosterOwnerCmd) Run(_ context.Context, p *program) error {
	private, err := keyfile.Make(c.File)
	if err != nil {
		return err
	}
	public, _ := private.Public().(ed25519.PublicKey)
	_, err = fmt.Fprintln(p.out, ownerText(public))
	return err
}

type rosterDraftCmd struct {
	Dir  string   `placeholder:"DIR" type:"existingdir" help:"The folder of the policy, for the digests of free roles. Without it, the policy in force on the server."`
	Free []string `placeholder:"ROLE,..." help:"Roles to free of signatures, as they stand in the policy."`
	Days uint16   `default:"90" help:"For how many days the roster counts, from now."`
}

// Help teaches what to look at.
func (rosterDraftCmd) Help() string {
	return `The draft goes to standard output; edit and review it. What differs from the
present roster is told beside it: each new passkey is the server's word, so
ask the person herself whether she enrolled one. New people do not approve
until you write so.

  curfew roster draft >draft.yaml
  curfew roster make draft.yaml roster.bin
  curfew roster sign roster.bin --key owner.key     each owner, offline
  curfew roster publish roster.bin`
}

// Run draws up the next roster.
func (c rosterDraftCmd) Run(ctx context.Context, p *program) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	m, err := client.GetRoster(ctx, &api.GetRosterRequest{})
	if err != nil {
		return err
	}
	was := grant.Roster{Fleet: m.Fleet, Threshold: 2, Party: m.Party, Origins: []string{m.Origin}, Approvals: 1}
	if len(m.Envelope) > 0 {
		if was, err = grant.OpenRoster(m.Envelope, m.Fleet); err != nil {
			return err
		}
	}
	d := draftOf(was)
	d.Version, d.Expires = was.Version+1, p.clock.Now().Wall.UTC().AddDate(0, 0, int(c.Days)).Truncate(time.Second)
	for _, f := range d.Free {
		c.Free = append(c.Free, f.Role)
	}
	d.Free = nil
	slices.Sort(c.Free)
	if c.Free = slices.Compact(c.Free); len(c.Free) > 0 {
		policy, err := p.policyIn(ctx, c.Dir)
		if err != nil {
			return err
		}
		for _, name := range c.Free {
			f, err := free(policy, name)
			if err != nil {
				return err
			}
			d.Free = append(d.Free, f)
		}
	}
	var changes []string
	d.People, changes = people(was, m.People)
	for _, change := range changes {
		if _, err := fmt.Fprintln(p.err, line(change)); err != nil {
			return err
		}
	}
	b, err := yaml.Marshal(d)
	if err == nil {
		_, err = p.out.Write(b)
	}
	return err
}

// people are those whose passkeys the server knows, and what is new about them.
func people(was grant.Roster, now []*api.PersonKeys) (all []draftPerson, changes []string) {
	for _, m := range now {
		var keys []grant.Passkey
		for _, k := range m.Keys {
			keys = append(keys, grant.Passkey{ID: k.Id, Public: k.Public})
		}
		if len(keys) == 0 {
			continue
		}
		one := draftPerson{Name: m.Person, Keys: draftKeys(keys)}
		var before []grant.Passkey
		if i := slices.IndexFunc(was.Members, func(w grant.Member) bool { return w.Name == m.Person }); i >= 0 {
			one.Approves, before = was.Members[i].Approves, was.Members[i].Keys
		}
		for i, k := range keys {
			if !slices.ContainsFunc(before, func(b grant.Passkey) bool { return bytes.Equal(b.ID, k.ID) && bytes.Equal(b.Public, k.Public) }) {
				changes = append(changes, "new: passkey "+one.Keys[i].ID+" of "+m.Person)
			}
		}
		all = append(all, one)
	}
	for _, w := range was.Members {
		for _, k := range draftKeys(w.Keys) {
			if !slices.ContainsFunc(all, func(d draftPerson) bool { return d.Name == w.Name && slices.Contains(d.Keys, k) }) {
				changes = append(changes, "gone: passkey "+k.ID+" of "+w.Name)
			}
		}
	}
	slices.SortFunc(all, func(a, b draftPerson) int { return cmp.Compare(a.Name, b.Name) })
	return all, changes
}

type rosterMakeCmd struct {
	Draft string `arg:"" type:"existingfile" help:"The draft."`
	File  string `arg:"" help:"What owners sign goes there."`
}

// Run makes what owners sign.
func (c rosterMakeCmd) Run(_ context.Context, p *program) error {
	text, err := os.ReadFile(c.Draft)
	if err != nil {
		return err
	}
	r, err := readDraft(text)
	if err != nil {
		return exit{exitRefused, err}
	}
	if err := os.WriteFile(c.File, dsse.Sign(grant.RosterType, r.Bytes()).Bytes(), 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "%s holds roster %d, unsigned: %d of its %d owners have to sign it.\n", c.File, r.Version, r.Threshold, len(r.Owners))
	return err
}

// readRoster reads a roster that may not be signed by enough yet.
func readRoster(name string) (dsse.Envelope, grant.Roster, error) {
	b, err := os.ReadFile(name) //nolint:gosec // the owner names the file
	if err != nil {
		return dsse.Envelope{}, grant.Roster{}, err
	}
	e, err := dsse.Parse(b)
	if err == nil && e.Type != grant.RosterType {
		err = fmt.Errorf("%s holds another kind of message: %.80q", name, e.Type)
	}
	if err != nil {
		return e, grant.Roster{}, err
	}
	r, err := grant.ParseRoster(e.Payload)
	return e, r, err
}

type rosterSignCmd struct {
	File string `arg:"" type:"existingfile" help:"The roster."`
	Key  string `required:"" type:"existingfile" placeholder:"FILE" help:"The owner's key, or the fleet's root key."`
}

// Run signs a roster.
func (c rosterSignCmd) Run(_ context.Context, p *program) error {
	e, r, err := readRoster(c.File)
	if err != nil {
		return err
	}
	key, err := keyfile.Read(c.Key)
	if err != nil {
		return err
	}
	mine := dsse.Sign(e.Type, e.Payload, key).Signatures[0]
	e.Signatures = append(slices.DeleteFunc(e.Signatures, func(s dsse.Signature) bool { return s.KeyID == mine.KeyID }), mine)
	if err := os.WriteFile(c.File, e.Bytes(), 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "Signed roster %d with key %s. %s\n", r.Version, mine.KeyID, signedBy(e, r))
	return err
}

// signedBy says how many owners have signed, as it stands in the envelope.
func signedBy(e dsse.Envelope, r grant.Roster) string {
	n := 0
	for _, s := range e.Signatures {
		if slices.ContainsFunc(r.Owners, func(o ed25519.PublicKey) bool {
			return dsse.KeyID(o) == s.KeyID && ed25519.Verify(o, dsse.PAE(e.Type, e.Payload), s.Bytes)
		}) {
			n++
		}
	}
	return fmt.Sprintf("%d of its %d owners have signed it, %d have to.", n, len(r.Owners), r.Threshold)
}

type rosterShowCmd struct {
	File string `arg:"" type:"existingfile" help:"The roster."`
}

// Run shows a roster.
func (c rosterShowCmd) Run(_ context.Context, p *program) error {
	e, r, err := readRoster(c.File)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(p.err, signedBy(e, r)); err != nil {
		return err
	}
	b, err := yaml.Marshal(draftOf(r))
	if err == nil {
		_, err = p.out.Write(b)
	}
	return err
}

type rosterPublishCmd struct {
	File string `arg:"" type:"existingfile" help:"The roster, signed."`
}

// Run publishes a roster.
func (c rosterPublishCmd) Run(ctx context.Context, p *program) error {
	b, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	r, err := proved(p, func(code string) (*api.PublishRosterReply, error) {
		return client.PublishRoster(ctx, &api.PublishRosterRequest{Envelope: b, Code: code})
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "Roster %d is on its way to every host.\n", r.Version)
	return err
}
