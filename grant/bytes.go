package grant

import (
	"fmt"
	"net/netip"
	"time"

	"curfew.internal/canon"
)

// Type names a grant in its envelope.
const Type = "application/vnd.curfew.grant.v1"

// Bytes is g's canonical form; docs/protocol/grant.md has the schema. What is
// signed, kept and passed on is this, verbatim.
func (g Grant) Bytes() []byte {
	var w canon.Writer
	w.Text(1, g.ID)
	w.Text(2, g.Fleet)
	w.Item(3, g.Person.bytes())
	w.Item(4, g.Role.bytes())
	w.Texts(5, g.Hosts)
	w.Seconds(6, g.NotBefore)
	w.Seconds(7, g.NotAfter)
	w.Uint(8, uint64(g.Lease/time.Second)) //nolint:gosec // a negative lease becomes huge, and Check refuses it
	w.Text(9, g.Request)
	w.Blob(10, g.Digest)
	w.Text(11, g.Reason)
	w.Text(12, g.Ticket)
	w.Item(13, g.Asked.bytes())
	for _, a := range g.Approvals {
		w.Item(14, a.bytes())
	}
	if g.Words != nil {
		w.Item(15, g.Words.bytes())
	}
	return w.Bytes()
}

// Parse reads a grant and checks it. It refuses fields that it does not know,
// and every spelling but the canonical one.
func Parse(b []byte) (Grant, error) {
	var g Grant
	err := canon.Read(b, g.field)
	if err == nil {
		err = canon.Same(b, g.Bytes())
	}
	if err == nil {
		err = g.Check()
	}
	if err != nil {
		return Grant{}, fmt.Errorf("grant: %w", err)
	}
	return g, nil
}

func (g *Grant) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&g.ID)
	case 2:
		return f.Text(&g.Fleet)
	case 3:
		return f.Message(g.Person.field)
	case 4:
		return f.Message(g.Role.field)
	case 5:
		return f.Texts(&g.Hosts)
	case 6:
		return f.Seconds(&g.NotBefore)
	case 7:
		return f.Seconds(&g.NotAfter)
	case 8:
		var s uint32
		err := f.Uint32(&s)
		g.Lease = time.Duration(s) * time.Second
		return err
	case 9:
		return f.Text(&g.Request)
	case 10:
		return f.Blob(&g.Digest)
	case 11:
		return f.Text(&g.Reason)
	case 12:
		return f.Text(&g.Ticket)
	case 13:
		return f.Message(g.Asked.field)
	case 14:
		var e Evidence
		err := f.Message(e.field)
		g.Approvals = append(g.Approvals, e)
		return err
	case 15:
		g.Words = &Words{}
		return f.Message(g.Words.field)
	}
	return f.Unknown()
}

func (p Person) bytes() []byte {
	var w canon.Writer
	w.Text(1, p.Name)
	w.Uint(2, uint64(p.UID))
	w.Text(3, p.FullName)
	return w.Bytes()
}

func (p *Person) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&p.Name)
	case 2:
		return f.Uint32(&p.UID)
	case 3:
		return f.Text(&p.FullName)
	}
	return f.Unknown()
}

func (r Role) bytes() []byte {
	var w canon.Writer
	w.Text(1, r.Name)
	w.Texts(2, r.RunAs)
	for _, c := range r.Commands {
		w.Item(3, c.bytes())
	}
	w.Bool(4, r.AnyCommand)
	w.Bool(5, r.NoExec)
	for _, d := range r.Network {
		w.Item(6, d.bytes())
	}
	w.Texts(7, r.Remove)
	w.Uint(8, uint64(r.Drain/time.Second)) //nolint:gosec // as the lease above
	w.Bool(9, r.Unguarded)
	w.Uint(10, uint64(r.Audit))
	w.Bool(11, r.Unseen)
	w.Bool(12, r.Typed)
	w.Bool(13, r.Strict)
	w.Bool(14, r.Signed)
	return w.Bytes()
}

func (r *Role) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&r.Name)
	case 2:
		return f.Texts(&r.RunAs)
	case 3:
		var c Command
		err := f.Message(c.field)
		r.Commands = append(r.Commands, c)
		return err
	case 4:
		return f.Bool(&r.AnyCommand)
	case 5:
		return f.Bool(&r.NoExec)
	case 6:
		var d Destination
		err := f.Message(d.field)
		r.Network = append(r.Network, d)
		return err
	case 7:
		return f.Texts(&r.Remove)
	case 8:
		var s uint32
		err := f.Uint32(&s)
		r.Drain = time.Duration(s) * time.Second
		return err
	case 9:
		return f.Bool(&r.Unguarded)
	case 10:
		return f.Uint32((*uint32)(&r.Audit))
	case 11:
		return f.Bool(&r.Unseen)
	case 12:
		return f.Bool(&r.Typed)
	case 13:
		return f.Bool(&r.Strict)
	case 14:
		return f.Bool(&r.Signed)
	}
	return f.Unknown()
}

func (c Command) bytes() []byte {
	var w canon.Writer
	w.Text(1, c.Path)
	w.Texts(2, c.Args)
	w.Bool(3, c.AnyArgs)
	return w.Bytes()
}

func (c *Command) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&c.Path)
	case 2:
		return f.Texts(&c.Args)
	case 3:
		return f.Bool(&c.AnyArgs)
	}
	return f.Unknown()
}

func (d Destination) bytes() []byte {
	var w canon.Writer
	w.Text(1, d.Protocol)
	w.Text(2, d.Net.String())
	w.Uint(3, uint64(d.Port))
	return w.Bytes()
}

func (d *Destination) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&d.Protocol)
	case 2:
		var s string
		if err := f.Text(&s); err != nil {
			return err
		}
		var err error
		d.Net, err = netip.ParsePrefix(s)
		return err
	case 3:
		var p uint32
		err := f.Uint32(&p)
		if p > 65535 {
			return fmt.Errorf("port %d: %w", p, canon.ErrMalformed)
		}
		d.Port = uint16(p)
		return err
	}
	return f.Unknown()
}

func (e Evidence) bytes() []byte {
	var w canon.Writer
	w.Text(1, e.Person)
	w.Text(2, e.Factor)
	w.Seconds(3, e.At)
	return w.Bytes()
}

func (e *Evidence) field(f canon.Field) error {
	switch f.Num {
	case 1:
		return f.Text(&e.Person)
	case 2:
		return f.Text(&e.Factor)
	case 3:
		return f.Seconds(&e.At)
	}
	return f.Unknown()
}
