package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"curfew.internal/controlplane/roster"
)

const crashPlace = "CURFEW_TEST_CRASH"

// decideUntilKilled asks, approves and revokes, and says so before each step,
// until it dies.
func decideUntilKilled(place string) {
	ctx := context.Background()
	s, err := Open(ctx, place, "lab")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	s.Use(signer{})
	all, err := s.Requests(ctx, true, 10000)
	if err != nil {
		return
	}
	for n := len(all); ; n++ {
		id := "r-" + number(n)
		fmt.Println(id)
		if _, err := s.Ask(ctx, asked(id), noon, roster.Change{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		fmt.Println(id)
		if _, err := s.Change(ctx, id, noon, approve); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		if n%2 == 1 {
			fmt.Println(id)
			if _, err := s.Change(ctx, id, noon, to("revoked")); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
		}
	}
}

func number(n int) string {
	b := []byte("aaaaaaaaaaaaaaaa")
	for i := len(b) - 1; n > 0; i-- {
		b[i] = 'a' + byte(n%26)
		n /= 26
	}
	return string(b)
}

// TestKilledInTheMiddle kills a server again and again in the middle of
// decisions, and looks at what is left each time.
func TestKilledInTheMiddle(t *testing.T) {
	place := newPlace(t)
	s := openAt(t, place)
	addPerson(t, s, "ana")
	addPerson(t, s, "ben")
	addHost(t, s, "db1")
	addHost(t, s, "db2")
	for round := range 12 {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), crashPlace+"="+place)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		// Each line comes just before a transaction: the kill falls into it, or
		// just before or behind it.
		for lines, n := bufio.NewScanner(out), 0; n < 3+round && lines.Scan(); n++ {
		}
		must(t, child.Process.Kill())
		if err := child.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		whole(t, openAt(t, place))
	}
}

// whole checks that every request that says it is issued has its one grant,
// in the sets of all its hosts, and that no other grant stands.
func whole(t *testing.T, s *Store) {
	t.Helper()
	all, err := s.Requests(t.Context(), true, 10000)
	must(t, err)
	var want []string
	for _, r := range all {
		switch {
		case r.State == "asked" && r.Grant == nil && len(r.Approvals) == 0:
		case r.State == "issued" && r.Grant != nil && len(r.Approvals) == 1 && r.EndedAt.IsZero():
			want = append(want, r.Grant.ID)
		case r.State == "revoked" && r.Grant != nil && !r.EndedAt.IsZero():
		default:
			t.Errorf("half a decision: %+v", r)
		}
	}
	for _, h := range []string{"db1", "db2"} {
		held := map[string]bool{}
		for _, g := range opened(t, s, h).Grants {
			held[g.ID] = true
		}
		if len(held) != len(want) {
			t.Errorf("%s holds %d grants, %d are issued", h, len(held), len(want))
		}
		for _, id := range want {
			if !held[id] {
				t.Errorf("%s does not hold %s", h, id)
			}
		}
	}
	var n int
	must(t, s.read.QueryRowContext(t.Context(), `SELECT count(*) FROM (SELECT request FROM grants GROUP BY request HAVING count(*) > 1) AS twice`).Scan(&n))
	if n > 0 {
		t.Error(errors.New("two grants of one request"))
	}
}
