package store

import (
	"testing"

	"curfew.internal/controlplane/roster"
)

// Where she is told is checked, and is hers alone; a server from before goes on
// adding people, who have none.
func TestAddresses(t *testing.T) {
	ctx, place := t.Context(), emptyPlace(t)
	old := &Store{}
	must(t, old.connect(place))
	p, err := old.provider()
	must(t, err)
	_, err = p.UpTo(ctx, 154)
	must(t, err)
	add := `INSERT INTO people (name, full_name, uid, admin) VALUES (?, '', ?, 0)`
	_, err = old.one.ExecContext(ctx, add, "ana", 70000)
	must(t, err)
	s := openAt(t, place) // the first new one
	_, err = old.one.ExecContext(ctx, add, "ben", 70001)
	must(t, err)
	must(t, old.Close())

	a := roster.Act{By: "root", At: noon}
	for _, name := range []string{"ana", "ben"} {
		if p, err := s.Person(ctx, name); err != nil || p.Email != "" {
			t.Errorf("%+v, %v", p, err)
		}
	}
	if p, err := s.SetEmail(ctx, "ana", "ana@example.com", a); err != nil || p.Email != "ana@example.com" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := s.Person(ctx, "ben"); err != nil || p.Email != "" {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = s.SetEmail(ctx, "ana", "ana@example.com\r\nBcc: eve@example.com", a)
	refused(t, err, "mail address: write it like")
	_, err = s.AddPerson(ctx, roster.Person{Name: "eve", Email: "eve"}, a)
	refused(t, err, "mail address: write it like")
	_, err = s.SetEmail(ctx, "nobody", "a@example.com", a)
	want(t, "of nobody", err, roster.ErrUnknown)
}
