package store

import (
	"errors"
	"testing"
	"time"

	"curfew.internal/controlplane/roster"
)

func TestCodesEndWithWhoMadeThem(t *testing.T) {
	for _, c := range []struct {
		name, by string
		stay     bool
	}{
		{"the admin who is disabled", "ada", false},
		{"another admin", "ida", true},
		{"the server's own", "root", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, ctx := fresh(t), t.Context()
			for _, name := range []string{"ada", "ida", "ben"} {
				addPerson(t, s, name)
			}
			by := roster.Act{By: c.by, At: noon}
			must(t, s.PutInvite(ctx, roster.Invite{Hash: [32]byte{1}, Person: "ben", Expires: noon.Add(time.Hour)}, by))
			must(t, s.PutJoinToken(ctx, roster.JoinToken{Hash: [32]byte{2}, Labels: newHost("db1").Labels, Expires: noon.Add(time.Hour), By: c.by}, noon))
			_, err := s.DisablePerson(ctx, "ada", roster.Act{By: "ida", At: noon})
			must(t, err)
			err = s.UpdateInvite(ctx, [32]byte{1}, func(i roster.Invite) (roster.Invite, error) { return i, nil })
			if (err == nil) != c.stay || err != nil && !errors.Is(err, roster.ErrUnknown) {
				t.Errorf("code to enrol with: %v", err)
			}
			_, err = s.UseJoinToken(ctx, [32]byte{2}, newHost("db1"), noon)
			if (err == nil) != c.stay {
				t.Errorf("code to join with: %v", err)
			}
			err = s.PutInvite(ctx, roster.Invite{Hash: [32]byte{3}, Person: "ben", Expires: noon.Add(time.Hour)}, by)
			late := s.PutJoinToken(ctx, roster.JoinToken{Hash: [32]byte{4}, Labels: newHost("db2").Labels, Expires: noon.Add(time.Hour), By: c.by}, noon)
			if (err == nil) != c.stay || (late == nil) != c.stay {
				t.Errorf("made after that: %v, %v", err, late)
			}
		})
	}
}
