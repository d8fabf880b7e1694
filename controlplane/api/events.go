package api

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"curfew.internal/controlplane/roster"
	"curfew.internal/dsse"
	"curfew.internal/ledger"
	"curfew.internal/wire/api"
)

func eventMessage(v roster.Event) *api.Event {
	e := v.Entry
	m := &api.Event{
		Id: v.ID, At: timestamppb.New(e.At), Host: v.Host, Kind: v.Kind, Grant: e.Grant, Person: e.Person, Approvers: e.Approvers,
		Role: v.Role, Session: e.Session, SessionSeq: e.SessionSeq, Process: processMessage(e.Process), Service: e.Service,
		Text: e.Text, Lost: e.Lost, Request: e.Request, Step: e.Step, Outcome: v.Outcome(), Object: e.Object,
	}
	if !e.Since.IsZero() {
		m.Since = timestamppb.New(e.Since)
	}
	if e.Took > 0 {
		m.Took = durationpb.New(e.Took)
	}
	switch e.Kind { //nolint:exhaustive // the others carry no receipt
	case ledger.Removed:
		m.Receipt = receiptMessage(v)
	case ledger.Leftovers:
		m.Receipt = leftoversMessage(v)
	}
	return m
}

// receiptMessage shows a receipt only as far as it counts: of one that the
// host's key did not sign, nothing but that.
func receiptMessage(v roster.Event) *api.Receipt {
	m := &api.Receipt{Host: v.Host, KeyId: dsse.KeyID(v.ReceiptKey)}
	r, ok := openReceipt(v)
	if !ok {
		return m
	}
	m.SignatureValid, m.Why, m.Removed, m.Killed, m.Looked, m.Left = true, r.Why, r.Removed, r.Killed, r.Looked, r.Left
	m.EndedAt, m.DoneAt = timestamppb.New(r.EndedAt), timestamppb.New(r.DoneAt)
	return m
}

// leftoversMessage does the same for a receipt for leftovers.
func leftoversMessage(v roster.Event) *api.Receipt {
	m := &api.Receipt{Host: v.Host, KeyId: dsse.KeyID(v.ReceiptKey)}
	r, err := ledger.OpenLeftovers(v.Entry.Receipt, v.ReceiptKey)
	if err != nil || !v.ReceiptOK {
		return m
	}
	m.SignatureValid, m.Removed, m.Left, m.Looked, m.Skipped = true, r.Removed, r.Left, r.Looked, r.Skipped
	m.Since, m.DoneAt = timestamppb.New(r.Since), timestamppb.New(r.DoneAt)
	return m
}

func processMessage(p *ledger.Process) *api.Process {
	if p == nil {
		return nil
	}
	m := &api.Process{
		Pid: p.PID, Ppid: p.PPID, Ids: idsMessage(p.IDs), OldIds: idsMessage(p.OldIDs), Comm: p.Comm, Path: p.Path, Argv: p.Argv,
		ArgvCut: p.ArgvCut, Cwd: p.Cwd, Tty: p.TTY, Device: p.Device, Inode: p.Inode, Links: p.Links, ExitCode: p.ExitCode, Signal: p.Signal,
		Env: p.Env, EnvCut: p.EnvCut, Script: p.Script, Login: p.Login,
	}
	if p.Lasted > 0 {
		m.Lasted = durationpb.New(p.Lasted)
	}
	return m
}

func idsMessage(i ledger.IDs) *api.IDs {
	return &api.IDs{Uid: i.UID, Euid: i.EUID, Gid: i.GID, Egid: i.EGID, Caps: i.Caps}
}
