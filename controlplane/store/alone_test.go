package store

import (
	"context"
	"errors"
	"testing"
)

// Of the servers of one database, one at a time does what has a name.
func TestAlone(t *testing.T) {
	place := newPlace(t)
	one, other := openAt(t, place), openAt(t, place)
	ctx, no := t.Context(), errors.New("no")
	nothing := func(context.Context) error { return nil }
	ran, err := one.Alone(ctx, "a", func(ctx context.Context) error {
		if ran, err := other.Alone(ctx, "a", nothing); ran != (server == nil) || err != nil {
			t.Errorf("beside it: %v, %v", ran, err) // SQLite has one server
		}
		if ran, err := other.Alone(ctx, "b", nothing); !ran || err != nil {
			t.Errorf("another name: %v, %v", ran, err)
		}
		return no
	})
	if !ran || !errors.Is(err, no) {
		t.Errorf("its own: %v, %v", ran, err)
	}
	if ran, err := other.Alone(ctx, "a", nothing); !ran || err != nil {
		t.Errorf("after it: %v, %v", ran, err)
	}
	// Also when its caller gave up meanwhile.
	gone, cancel := context.WithCancel(ctx)
	if _, err := one.Alone(gone, "a", func(context.Context) error { cancel(); return nil }); err != nil {
		t.Error(err)
	}
	if ran, err := other.Alone(ctx, "a", nothing); !ran || err != nil {
		t.Errorf("after one who gave up: %v, %v", ran, err)
	}
}
