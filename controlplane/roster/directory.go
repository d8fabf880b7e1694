package roster

import "time"

// A Directory is what a directory, or a provider, knows of people.
type Directory struct {
	Members  map[string][]string // of groups, by its names; sorted
	Managers map[string]string   // of people
}

// A DirUser is somebody as the directory keeps her.
type DirUser struct {
	ID         string // ours
	ExternalID string // the directory's
	UserName   string // there; nobody else has it, whatever its case
	FullName   string
	Person     string // whom she is here, for ever
	Manager    string // id of another user; empty: none is known
	Email      string // where she is told what concerns her; empty: nowhere
	Active     bool   // in the directory, and not disabled here
	Created    time.Time
	Changed    time.Time
}

// A DirGroup is a group as the directory keeps it.
type DirGroup struct {
	ID         string
	ExternalID string
	Name       string
	Members    []string // ids of users, sorted
	Created    time.Time
	Changed    time.Time
}
