package oncall

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"curfew.internal/controlplane/roster"
	"curfew.internal/grant"
)

// Bounds of an answer.
const (
	maxBytes     = 1 << 20
	maxRotations = 500
	maxTurns     = 10000 // of all rotations together
)

// answer is what a source says, as JSON or YAML.
type answer struct {
	Rotations map[string][]turn `yaml:"rotations"`
}

type turn struct {
	Person string `yaml:"person"`
	From   string `yaml:"from"`
	Until  string `yaml:"until"`
}

// Parse reads an answer. One with a mistake is none: half of it might be the
// half without the one who has to be asked.
func Parse(text []byte) (map[string][]roster.Turn, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("the answer has over %d bytes: name those alone who are on call in the next days", maxBytes)
	}
	var a answer
	d := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	if err := d.Decode(&a); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		first, _, _ := strings.Cut(err.Error(), "\n") // the rest shows the text
		return nil, errors.New("the answer cannot be read: " + first)
	}
	if err := d.Decode(&answer{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("the answer is more than one document: give one")
	}
	if a.Rotations == nil || len(a.Rotations) > maxRotations {
		return nil, fmt.Errorf("the answer has no rotations, or over %d: give {rotations: {NAME: [{person: ..., from: ..., until: ...}]}}", maxRotations)
	}
	all, n := map[string][]roster.Turn{}, 0
	for name, turns := range a.Rotations {
		if n += len(turns); n > maxTurns {
			return nil, fmt.Errorf("the answer has over %d turns: name those alone who are on call in the next days", maxTurns)
		}
		if err := grant.CheckText("name of a rotation", name, maxName); err != nil || name == "" {
			return nil, errors.Join(errors.New("a rotation has no proper name"), err)
		}
		read, err := readTurns(turns)
		if err != nil {
			return nil, fmt.Errorf("rotation %s: %w", name, err)
		}
		all[name] = read
	}
	return all, nil
}

// maxName is what a rotation's name may have, as the policy names it.
const maxName = 200

func readTurns(turns []turn) ([]roster.Turn, error) {
	all := []roster.Turn{}
	for i, t := range turns {
		from, ferr := time.Parse(time.RFC3339, t.From)
		until, uerr := time.Parse(time.RFC3339, t.Until)
		switch err := grant.CheckPerson(t.Person); {
		case err != nil:
			return nil, fmt.Errorf("turn %d: %w", i+1, err)
		case ferr != nil || uerr != nil:
			return nil, fmt.Errorf("turn %d, of %s: write from and until like 2027-01-04T09:00:00Z", i+1, t.Person)
		case !from.Before(until):
			return nil, fmt.Errorf("turn %d, of %s: it ends before it begins", i+1, t.Person)
		}
		all = append(all, roster.Turn{Person: t.Person, From: from.UTC(), Until: until.UTC()})
	}
	slices.SortFunc(all, func(a, b roster.Turn) int {
		return cmp.Or(a.From.Compare(b.From), a.Until.Compare(b.Until), cmp.Compare(a.Person, b.Person))
	})
	return all, nil
}
