package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
	"curfew.internal/wire/api"
)

// written are rules as they are read from files.
type written struct{ policy.Policy }

func (r written) MayApprove(person, requester, role string) bool {
	return slices.Contains(r.Policy.MayApprove(role, requester), person)
}

func (r written) State() roster.PolicyState { return roster.PolicyState{Version: r.Version} }

const inDoubt = `labels: {tier: [db, web]}
roles:
  db-admin:
    hosts: {tier: db}
    commands: [/bin/systemctl restart cron]
    max_duration: 2h
    approval:
      - {by: [ben]}
      - {by: [cy], when: risk.new_network}
      - {by: [eve], when: risk.factor_refused > 1}
eligible:
  - {role: db-admin, people: [ana]}
`

// The first request from a network takes one more approval, and says why to all
// who see it; what was granted from there makes it usual. Wrong codes bring
// another person in, for an hour, and keep nobody out.
func TestDoubtBringsAnotherPersonIn(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	p, problems := policy.Parse(map[string][]byte{"r.yaml": []byte(inDoubt)})
	if !policy.Holds(problems) {
		t.Fatal(problems)
	}
	w.server.Rules = written{p}
	yes := func(p *person, r *api.Request) (*api.Request, error) {
		return p.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: p.fresh(t)})
	}
	const because = "the request comes from a network that is new for ana"

	r := w.ask(t)
	if len(r.Doubts) != 1 || r.Doubts[0].Because != because || r.ApprovalsNeeded != 2 || r.Risk == nil || !r.Risk.GetNewNetwork() || !r.Risk.GetFirstTime() {
		t.Errorf("%v", r)
	}
	_, err := yes(w.eve, r)
	refused(t, err, connect.CodeFailedPrecondition, "your word is not asked for here: nothing that role db-admin has you asked for is so with this request, which waits for 1 of: ben")
	now, err := yes(w.ben, r)
	must(t, err)
	if want := "1 of: cy; this step is asked because " + because; now.State != "asked" || now.WaitsFor != want {
		t.Errorf("%s, waits for %q", now.State, now.WaitsFor)
	}
	story, err := w.ana.Timeline(ctx, &api.TimelineRequest{Grant: r.Id})
	must(t, err)
	told := slices.ContainsFunc(story.Moments, func(m *api.Moment) bool {
		return m.What == roster.DoubtStep && m.Text == "step 2 of 2, by 1 of cy, is asked because "+because
	})
	if !told {
		t.Errorf("the story does not tell why: %v", story.Moments)
	}
	now, err = yes(w.cy, r)
	must(t, err)
	if now.State != "issued" || len(now.Doubts) != 1 {
		t.Errorf("%v", now)
	}

	if r = w.ask(t); len(r.Doubts) != 0 || r.ApprovalsNeeded != 1 || r.Risk.GetNewNetwork() || r.Risk.GetFirstTime() {
		t.Errorf("the network is not usual: %v", r)
	}
	for range 2 {
		_, err = w.ana.CreateRequest(ctx, question(t, w.ana, func(m *api.CreateRequestRequest) { m.Code = "wrong" }))
		refused(t, err, connect.CodePermissionDenied, "that code is not right")
	}
	if r = w.ask(t); r.ApprovalsNeeded != 2 || len(r.Doubts) != 1 || r.Doubts[0].Because != "a factor was refused for ana in the hour before (times: 2)" {
		t.Errorf("%v", r)
	}
	w.clock.pass(time.Hour)
	if again := w.ask(t); again.ApprovalsNeeded != 1 {
		t.Errorf("an hour later: %v", again)
	}
	kept, err := w.ana.GetRequest(ctx, &api.GetRequestRequest{Id: r.Id})
	must(t, err)
	if kept.Risk.GetFactorRefused() != 2 || len(kept.Doubts) != 1 {
		t.Errorf("what was so when it was asked is not so any more: %v", kept)
	}
}

// Roles tell beforehand what is asked for in doubt.
func TestRolesTellWhatIsAskedInDoubt(t *testing.T) {
	w := newWorld(t)
	p, problems := policy.Parse(map[string][]byte{"r.yaml": []byte(inDoubt)})
	if !policy.Holds(problems) {
		t.Fatal(problems)
	}
	w.server.Rules = written{p}
	all, err := w.ana.ListRoles(t.Context(), &api.ListRolesRequest{})
	must(t, err)
	want := "1 of cy, if the request comes from a network that is new for who asks\n1 of eve, if risk.factor_refused > 1"
	if got := strings.Join(all.Roles[0].Doubtful, "\n"); got != want || all.Roles[0].ApprovalsNeeded != 1 {
		t.Errorf("%d, and\n%s", all.Roles[0].ApprovalsNeeded, got)
	}
}

// A group may have thousands of people. What is written and told of an approval
// by them names some, and the last of them decides as the first.
func TestTextsNameFewOfMany(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	many := make([]string, 0, 5001)
	for i := range 5000 {
		many = append(many, fmt.Sprintf("b%04d", i))
	}
	rule(t, w, strings.ReplaceAll(strings.Replace(inDoubt, "roles:", "groups: {many: ["+strings.Join(append(many, "cy"), ", ")+"]}\nroles:", 1), "[cy]", "['group:many']"))
	r := w.ask(t)
	now, err := w.ben.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	must(t, err)
	roles, err := w.ana.ListRoles(ctx, &api.ListRolesRequest{})
	must(t, err)
	story, err := w.ana.Timeline(ctx, &api.TimelineRequest{Grant: r.Id})
	must(t, err)
	texts := map[string]string{"what it waits for": now.WaitsFor, "the role": roles.Roles[0].Doubtful[0]}
	for _, m := range story.Moments {
		if m.What == roster.DoubtStep {
			texts["the story"] = m.Text
		}
	}
	for what, text := range texts {
		if !strings.Contains(text, "1 of b0000, b0001, ") && !strings.Contains(text, "1 of: b0000, b0001, ") || !strings.Contains(text, "b0007 and 4993 more") || len(text) > 300 {
			t.Errorf("%s: %d characters: %.300s", what, len(text), text)
		}
	}
	if len(texts) != 3 || len(now.Approvers) != 5001 {
		t.Errorf("%d texts, %d people", len(texts), len(now.Approvers))
	}
	now, err = w.cy.Approve(ctx, &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.cy.fresh(t)})
	if err != nil || now.State != "issued" {
		t.Errorf("%v, %v", now, err)
	}
}
