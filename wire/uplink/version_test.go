package uplink

import "testing"

func TestAgree(t *testing.T) {
	for _, c := range []struct {
		name           string
		oldest, newest uint32
		want           uint32
	}{
		{"who says nothing speaks the first", 0, 0, 1},
		{"the newest that both speak", Oldest, Newest, Newest},
		{"one that speaks newer ones too", Newest, Newest + 3, Newest},
		{"one that has forgotten ours is refused", Newest + 1, Newest + 3, 0},
		{"a range that is none is refused", 3, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Agree(c.oldest, c.newest)
			if got != c.want || (err == nil) != (c.want != 0) {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}
