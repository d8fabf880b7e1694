package api_test

import (
	"testing"

	"curfew.internal/wire/api"
)

// The word of somebody whose account was disabled counts no more, while the
// request waits for another one.
func TestAWordEndsWithItsAccount(t *testing.T) {
	w := newWorld(t)
	w.rules.change(func() { w.rules.needed, w.rules.approvers = 2, []string{"ben", "cy", "ada"} })
	r := w.ask(t)
	_, err := w.cy.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.cy.fresh(t)})
	must(t, err)
	_, err = w.ada.DisablePerson(t.Context(), &api.DisablePersonRequest{Name: "cy"})
	must(t, err)
	story, err := w.ada.Timeline(t.Context(), &api.TimelineRequest{Grant: r.Id})
	must(t, err)
	if last := story.Moments[len(story.Moments)-1]; last.Person != "ada" || last.Text != "cy's approval counts no more: the account was disabled" {
		t.Errorf("the story ends with %v", last)
	}
	done, err := w.ben.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ben.fresh(t)})
	must(t, err)
	if done.State != "asked" {
		t.Fatalf("the word of somebody who was disabled counts on: %s", done.State)
	}
	done, err = w.ada.Approve(t.Context(), &api.ApproveRequest{Id: r.Id, Digest: r.Digest, Code: w.ada.fresh(t)})
	if err != nil || done.State != "issued" {
		t.Errorf("two others: %v, %v", done, err)
	}
}
