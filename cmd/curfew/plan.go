package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/policy/plan"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// lately is how far back a plan looks at requests.
const lately = 30 * 24 * time.Hour

type policyPlanCmd struct {
	Dirs     []string `arg:"" name:"folder" type:"existingdir" help:"OLD and NEW; or NEW alone, against the policy in force on the server."`
	Requests bool     `help:"Also ask both policies about the requests of the last 30 days on the server; so it is without OLD."`
}

// Help teaches how to read a plan.
func (policyPlanCmd) Help() string {
	return `What becomes wider gives more than before: people who may ask, longer maxima,
more commands, more hosts, more who may approve, fewer who have to. For what
is neither wider nor narrower for certain, it says other: read it. WHERE is
the line in NEW, or in OLD for what is gone.

  curfew policy plan old/ new/
  curfew policy plan new/                  against the server; needs an admin's session
  curfew policy plan old/ new/ -o json`
}

// Run says what a change would do.
func (c policyPlanCmd) Run(ctx context.Context, p *program) error {
	if len(c.Dirs) > 2 {
		return exit{exitUsage, errors.New("say two folders, OLD and NEW, or NEW alone")}
	}
	oldDir, newDir := "", c.Dirs[len(c.Dirs)-1]
	if len(c.Dirs) == 2 {
		oldDir = c.Dirs[0]
	}
	to, err := p.policyIn(ctx, newDir)
	if err != nil {
		return err
	}
	from, err := p.policyIn(ctx, oldDir)
	if err != nil {
		return err
	}
	if oldDir == "" { // a folder does not say what the directory knows
		to = to.With(from.Kept).Called(from.Answer)
	}
	now := p.clock.Now().Wall.UTC()
	made := planned{Changes: plan.Compare(from, to, now)}
	if c.Requests || oldDir == "" {
		asked, hosts, err := p.asked(ctx, now)
		if err != nil {
			return err
		}
		made.Asked, made.Replays = len(asked), plan.Replays(from, to, asked, hosts)
		made.looked = true
	}
	if p.Output == "json" {
		return json.NewEncoder(p.out).Encode(made)
	}
	return made.print(p, oldDir, newDir)
}

// planned is a plan as it is printed.
type planned struct {
	Changes []plan.Change `json:"changes"`
	Asked   int           `json:"requests"` // that were looked at
	Replays []plan.Replay `json:"requests_changed"`
	looked  bool
}

// asked are the requests of the last 30 days, as the server tells them: the
// newest, if they are very many.
func (p *program) asked(ctx context.Context, now time.Time) ([]plan.Past, []roster.Host, error) {
	hosts, err := p.hosts(ctx)
	if err != nil {
		return nil, nil, err
	}
	c, err := p.client()
	if err != nil {
		return nil, nil, err
	}
	r, err := c.ListRequests(ctx, &api.ListRequestsRequest{All: true})
	if err != nil {
		return nil, nil, err
	}
	var all []plan.Past
	for _, x := range r.Requests {
		if at := x.AskedAt.AsTime(); at.After(now.Add(-lately)) {
			q := roster.Question{Person: x.Person, Role: x.Role, Hosts: x.Hosts, Duration: x.Duration.AsDuration(), Reason: x.Reason, Ticket: x.Ticket, Source: x.Source}
			q.Risk, q.Doubts = kept(x)
			one := plan.Past{ID: x.Id, Question: q, At: at}
			if x.Start != nil {
				one.Start = x.Start.AsTime()
			}
			if x.Proof != nil {
				one.ProofAge = x.AskedAt.AsTime().Sub(x.Proof.At.AsTime())
			}
			all = append(all, one)
		}
	}
	return all, hosts, nil
}

// kept is what was out of the ordinary when it was asked.
func kept(x *api.Request) (roster.Risk, []roster.Doubt) {
	var r roster.Risk
	if m := x.Risk; m != nil { // else from a server that keeps none
		r.NewNetwork, r.FirstTime = m.NewNetwork, m.FirstTime
		if m.FactorRefused != nil {
			n := int(*m.FactorRefused)
			r.FactorRefused = &n
		}
		if m.FactorAge != nil {
			age := m.FactorAge.AsDuration()
			r.FactorAge = &age
		}
	}
	var doubts []roster.Doubt
	for _, d := range x.Doubts {
		doubts = append(doubts, roster.Doubt{If: d.If, Because: d.Because})
	}
	return r, doubts
}

func (m planned) print(p *program, oldDir, newDir string) error {
	var rows [][]string
	for _, c := range m.Changes {
		at := inside(newDir, c.New)
		if c.New.Line == 0 {
			at = inside(oldDir, c.Old)
		}
		text := c.Text
		if c.Kind != "eligible" && c.Kind != "until" && len(c.People) > 0 {
			text += ", for " + strings.Join(c.People, ", ")
		}
		rows = append(rows, []string{c.Direction, c.Role, at, text})
	}
	if err := m.told(p, "CHANGE ROLE WHERE WHAT", rows, "Nothing changes for anybody."); err != nil || !m.looked {
		return err
	}
	rows = nil
	for _, r := range m.Replays {
		rows = append(rows, []string{r.Direction, r.Request, r.Person, r.Role, roster.Some(r.Hosts, ","), stamp(r.At), r.Text})
	}
	if _, err := fmt.Fprintf(p.out, "\nRequests of the last 30 days: %d; to %d, NEW says something else.\n", m.Asked, len(m.Replays)); err != nil || len(rows) == 0 {
		return err
	}
	return m.told(p, "CHANGE REQUEST WHO ROLE ON ASKED WHAT", rows, "")
}

func (planned) told(p *program, head string, rows [][]string, none string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(p.out, none)
		return err
	}
	return table(p.out, head, rows)
}

// inside is a place in a folder; without one, in the policy in force.
func inside(dir string, at policy.Place) string {
	if dir == "" {
		return "in-force:" + where(at)
	}
	return filepath.Join(filepath.Base(dir), at.File) + strings.TrimPrefix(where(at), at.File)
}
