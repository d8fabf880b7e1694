package main

import (
	"context"
	"time"

	"github.com/pquerna/otp/hotp"
	"google.golang.org/protobuf/types/known/durationpb"

	"curfew.internal/agent/doctor"
	"curfew.internal/wire/api"
	"curfew.internal/wire/api/apiconnect"
)

// A person works with a command line's API and an authenticator.
type person struct {
	apiconnect.CurfewClient
	name, secret string
	used         int64 // the last half minute whose code was spent
}

const halfMinute = 30

// next is her next code, and when it counts.
func (p *person) next() (string, time.Time) {
	step := max(time.Now().Unix()/halfMinute, p.used+1)
	code, _ := hotp.GenerateCode(p.secret, uint64(step)) // the secret is the server's
	return code, time.Unix((step-1)*halfMinute, 0)
}

// code spends her next code, once it counts.
func (p *person) code(ctx context.Context) (string, error) {
	code, from := p.next()
	p.used = max(time.Now().Unix()/halfMinute, p.used+1)
	return code, within(ctx, "the next half minute", func() (bool, error) { return time.Now().After(from), nil })
}

// link signs a browser in.
func (p *person) link(ctx context.Context) (string, error) {
	code, err := p.code(ctx)
	if err != nil {
		return "", err
	}
	r, err := p.OpenPages(ctx, &api.OpenPagesRequest{Code: code})
	if err != nil {
		return "", err
	}
	return r.Link, nil
}

// join adds somebody and enrols her command line.
func (t *town) join(ctx context.Context, name, full string) (*person, error) {
	r, err := t.add(ctx, name, full, false)
	if err != nil {
		return nil, err
	}
	p := &person{name: name, used: time.Now().Unix() / halfMinute}
	p.CurfewClient, p.secret, err = enrol(ctx, name, r.Invite)
	return p, err
}

// ask makes a request.
func (p *person) ask(ctx context.Context, m *api.CreateRequestRequest, d time.Duration) (*api.Request, error) {
	var err error
	if m.Code, err = p.code(ctx); err != nil {
		return nil, err
	}
	m.Duration = durationpb.New(d)
	return p.CreateRequest(ctx, m)
}

// approve says yes to what is shown, and waits until the host has it.
func (p *person) approve(ctx context.Context, q *api.Request, on *host) (*api.Request, error) {
	code, err := p.code(ctx)
	if err != nil {
		return nil, err
	}
	q, err = p.Approve(ctx, &api.ApproveRequest{Id: q.Id, Digest: q.Digest, Code: code})
	if err != nil {
		return nil, err
	}
	return q, within(ctx, "the grant on its host", func() (bool, error) { return on.holds(q.Grant), nil })
}

var unwiredSudo = doctor.Finding{Check: "wiring", Severity: doctor.Broken, Says: "sudo: PAM does not ask the agent", Mend: "curfew-agent install"}

// play fills the town: one grant that is over, one that stands, two requests
// that wait. It returns those to look at the pages as.
func (t *town) play(ctx context.Context) ([]*person, error) {
	db1, err := t.found(ctx, "db1", map[string]string{"tier": "db"})
	if err != nil {
		return nil, err
	}
	if _, err := t.found(ctx, "db2", map[string]string{"tier": "db"}, unwiredSudo); err != nil {
		return nil, err
	}
	web1, err := t.found(ctx, "web1", map[string]string{"tier": "web"})
	if err != nil {
		return nil, err
	}
	web1.leave() // it is away
	people := map[string]*person{}
	for name, full := range map[string]string{"ana": "Ana Ortiz", "ben": "Ben Okafor", "cleo": "Cleo Marsh", "dan": "Dan Weiss"} {
		if people[name], err = t.join(ctx, name, full); err != nil {
			return nil, err
		}
	}
	ana, ben, cleo, dan := people["ana"], people["ben"], people["cleo"], people["dan"]
	q, err := ana.ask(ctx, &api.CreateRequestRequest{Role: "db-admin", Hosts: []string{"db1"}, Reason: "Disk of db1 is 97 % full", Ticket: "INC-4119"}, time.Hour)
	if err != nil {
		return nil, err
	}
	if q, err = ben.approve(ctx, q, db1); err != nil {
		return nil, err
	}
	if err := db1.run(q.Grant, []string{"/usr/local/sbin/free-disk"}, []string{"/usr/bin/systemctl", "restart", "postgresql"}); err != nil {
		return nil, err
	}
	if _, err := ana.Revoke(ctx, &api.RevokeRequest{Grant: q.Grant, Note: "done"}); err != nil {
		return nil, err
	}
	if q, err = dan.ask(ctx, &api.CreateRequestRequest{Role: "db-admin", Hosts: []string{"db1"}, Reason: "Postgres does not come back after the update", Ticket: "INC-4120"}, 2*time.Hour); err != nil {
		return nil, err
	}
	if _, err = cleo.approve(ctx, q, db1); err != nil {
		return nil, err
	}
	if _, err = ana.ask(ctx, &api.CreateRequestRequest{Role: "db-admin", Hosts: []string{"db1", "db2"}, Reason: "Disk of db1 is full again, and db2 follows", Ticket: "INC-4121"}, time.Hour); err != nil {
		return nil, err
	}
	_, err = cleo.ask(ctx, &api.CreateRequestRequest{Role: "web-deploy", Hosts: []string{"web1"}, Reason: "Shop 4.2"}, 30*time.Minute)
	ada := &person{CurfewClient: t.ada, name: "ada", secret: t.secret, used: time.Now().Unix() / halfMinute}
	return []*person{ada, ana, ben}, err
}
