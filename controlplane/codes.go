package controlplane

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"time"

	"curfew.internal/clock"
	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/roster"
	"curfew.internal/controlplane/store"
	"curfew.internal/wire/invite"
)

// joinLife is how long a host's code can be used.
const joinLife = 24 * time.Hour

// codes makes the codes that people paste.
type codes struct {
	config Config
	store  *store.Store
	desk   *identity.Desk
	clock  clock.Clock
	ca     []byte // SHA-256 of the CA certificate behind agents_url
	people []byte // the same, behind url
	root   ed25519.PublicKey
}

// Invite makes a code for a person.
func (c *codes) Invite(ctx context.Context, person, by string) (roster.Code, error) {
	secret, expires, err := c.desk.Invite(ctx, person, by)
	return c.code(secret, expires), err
}

// InviteBeside makes a code for a device beside those that the person has.
func (c *codes) InviteBeside(ctx context.Context, person string) (roster.Code, error) {
	secret, expires, err := c.desk.InviteBeside(ctx, person)
	return c.code(secret, expires), err
}

// find is the code by which a command line finds the server. It is no secret.
func (c *codes) find() string {
	return invite.Code{Kind: invite.Fleet, URL: c.config.URL, CA: c.people, Fleet: c.config.Fleet}.String()
}

func (c *codes) code(secret string, expires time.Time) roster.Code {
	code := invite.Code{Kind: invite.Person, URL: c.config.URL, CA: c.people, Fleet: c.config.Fleet, Secret: secret}
	v := roster.Code{Text: code.String(), Expires: expires}
	if c.config.Web != nil {
		// Behind the #, where no server and no log sees it.
		v.Link = c.config.Web.Origin + "/enrol#" + secret
	}
	return v
}

// Join makes a code for a host; for one of that name, unless it is empty.
func (c *codes) Join(ctx context.Context, host string, labels map[string]string, by string) (string, time.Time, error) {
	secret := rand.Text()
	now := c.clock.Now().Wall
	expires := now.Add(joinLife).Truncate(time.Second)
	if labels == nil {
		labels = map[string]string{}
	}
	err := c.store.PutJoinToken(ctx, roster.JoinToken{Hash: sha256.Sum256([]byte(secret)), Host: host, Labels: labels, Expires: expires, By: by}, now)
	if err != nil {
		return "", time.Time{}, err
	}
	code := invite.Code{
		Kind: invite.Join, URL: c.config.AgentsURL, CA: c.ca, Roots: []ed25519.PublicKey{c.root}, Fleet: c.config.Fleet, Secret: secret,
	}
	return code.String(), expires, nil
}
