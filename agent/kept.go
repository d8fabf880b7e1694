package agent

import (
	"fmt"
	"strconv"

	"curfew.internal/agent/keep"
)

// kept is the agent's durable state, with what belongs to this boot alone in
// memory.
type kept struct {
	*keep.Keep
	sessions keep.Folder // in /run
	state    keep.Folder
}

const openedName = "opened"

func (k kept) Sessions() ([]Session, error) {
	names, err := k.sessions.Names()
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var all []Session
	for _, n := range names {
		var s Session
		found, err := k.sessions.Load(n, &s)
		if err != nil {
			return nil, err
		}
		if found {
			all = append(all, s)
		}
	}
	return all, nil
}

func sessionName(id uint64) string { return strconv.FormatUint(id, 16) }

func (k kept) SaveSession(s Session) error { return k.sessions.Save(sessionName(s.ID), s) }

func (k kept) DropSession(id uint64) error { return k.sessions.Drop(sessionName(id)) }

func (k kept) Opened() (map[string]Opened, error) {
	o := map[string]Opened{}
	_, err := k.state.Load(openedName, &o)
	return o, err
}

func (k kept) SaveOpened(o map[string]Opened) error { return k.state.Save(openedName, o) }
