package forward

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"curfew.internal/controlplane/roster"
	"curfew.internal/durable"
	"curfew.internal/ledger"
)

// ocsfVersion is that of the schema.
const ocsfVersion = "1.4.0"

// Classes of the schema.
const (
	baseEvent        = 0
	processActivity  = 1007
	authentication   = 3002
	entityManagement = 3004
	userAccess       = 3005
)

// otherActivity is what the schema has no number for.
const otherActivity = 99

var severityIDs = map[gravity]int{plain: 1, notable: 2, warning: 3, grave: 4}

type object = map[string]any

// class is the schema's class of an event, and its activity in it.
func class(v roster.Event) (uid, activity int) {
	if v.Kind == roster.Malformed {
		return baseEvent, otherActivity
	}
	switch v.Entry.Kind {
	case ledger.Exec:
		return processActivity, 1 // launch
	case ledger.Exit:
		return processActivity, 2 // terminate
	case ledger.SetID:
		return processActivity, 5 // set user id
	case ledger.Login, ledger.Refused:
		return authentication, 1 // logon
	case ledger.Logout:
		return authentication, 2 // logoff
	case ledger.Installed:
		return userAccess, 1 // assign privileges
	case ledger.Removed:
		return userAccess, 2 // revoke privileges
	case ledger.Decision:
		if v.Entry.Step == "asked" {
			return entityManagement, 1 // create
		}
		return entityManagement, 3 // update
	case ledger.SignIn:
		if v.Entry.Step == roster.SignedOut || v.Entry.Step == roster.CutOff {
			return authentication, 2 // logoff
		}
		return authentication, 1 // logon
	case ledger.Admin:
		return entityManagement, otherActivity
	case ledger.Privilege:
		return processActivity, 1 // launch: what gained it
	case ledger.Gap, ledger.SetRefused, ledger.Drift, ledger.Agent, ledger.Leftovers, ledger.Connect, ledger.Open, ledger.Act, ledger.WouldRefuse,
		ledger.Terminal, ledger.Sealed, ledger.Witnessed, ledger.Named:
	}
	return baseEvent, otherActivity
}

// ocsf is one event in the schema.
func ocsf(fleet string, v roster.Event) object {
	v = short(v)
	e := v.Entry
	uid, activity := class(v)
	o := object{
		"class_uid": uid, "category_uid": uid / 1000, "activity_id": activity, "type_uid": uid*100 + activity,
		"severity_id": severityIDs[gravityOf(v)], "time": e.At.UnixMilli(), "message": sentence(v),
		"metadata": object{
			"version": ocsfVersion, "uid": fleet + "/" + strconv.FormatUint(v.ID, 10), "sequence": v.ID, "event_code": v.Kind,
			"product": object{"name": "Curfew", "vendor_name": "Curfew"},
		},
		"unmapped": unmapped(v),
	}
	if activity == otherActivity {
		o["activity_name"] = v.Kind
	}
	if out := v.Outcome(); out != "" {
		o["status_id"], o["status_detail"] = map[bool]int{true: 1, false: 2}[out == roster.WentWell], out
	}
	if v.Host != "" {
		o["device"] = object{"hostname": v.Host, "type_id": 1} // server
	}
	person := object{"name": e.Person, "type_id": 1}
	switch uid {
	case processActivity:
		o["process"] = process(e.Process)
		o["actor"] = object{"user": person, "session": object{"uid": strconv.FormatUint(e.Session, 16)}}
		if p := e.Process; p != nil && e.Kind == ledger.Exit {
			o["exit_code"] = p.ExitCode
		}
	case authentication:
		o["user"], o["service"] = person, object{"name": e.Service}
		o["session"] = object{"uid": strconv.FormatUint(e.Session, 16)}
	case userAccess:
		o["user"], o["privileges"] = person, []string{v.Role}
	case entityManagement:
		o["actor"] = object{"user": person}
		o["entity"] = object{"name": e.Request, "uid": e.Grant, "type": "request"}
		o["comment"] = oneLine(e.Text)
		if e.Kind == ledger.Admin {
			o["entity"] = object{"name": fleet, "type": "fleet"}
		} else {
			o["activity_name"] = e.Step
		}
	}
	return o
}

// unmapped is what the schema has no place for.
func unmapped(v roster.Event) object {
	e := v.Entry
	o := object{"fleet_host": v.Host}
	for key, s := range map[string]string{
		"grant": e.Grant, "role": v.Role, "request": e.Request, "step": e.Step, "object": e.Object, "boot": e.Boot, "person": e.Person, "outcome": v.Outcome(),
	} {
		if s != "" {
			o[key] = s
		}
	}
	if len(e.Approvers) > 0 {
		o["approvers"] = e.Approvers
	}
	if e.Session != 0 {
		o["session"], o["session_seq"] = strconv.FormatUint(e.Session, 16), e.SessionSeq
	}
	if e.Lost > 0 {
		o["lost"] = e.Lost
	}
	if v.Deleted {
		o["deleted"] = true
	}
	return o
}

func process(p *ledger.Process) object {
	if p == nil {
		return object{}
	}
	o := object{
		"pid": p.PID, "name": p.Comm, "cmd_line": command(p), "working_directory": p.Cwd,
		"user":           object{"uid": strconv.FormatUint(uint64(p.IDs.EUID), 10)},
		"parent_process": object{"pid": p.PPID},
	}
	if p.Path != "" {
		o["file"] = object{"name": path.Base(p.Path), "path": p.Path, "type_id": 1} // regular
	}
	return o
}

// ocsfLines are events, one a line.
func ocsfLines(fleet string, events []roster.Event) ([]byte, error) {
	var all bytes.Buffer
	w := json.NewEncoder(&all)
	w.SetEscapeHTML(false)
	for _, v := range events {
		if err := w.Encode(ocsf(fleet, v)); err != nil {
			return nil, fmt.Errorf("entry %d as OCSF: %w", v.ID, err)
		}
	}
	return all.Bytes(), nil
}

// ocsfCall posts lines of JSON. Whatever the receiver says yes to, it has.
type ocsfCall struct {
	fleet string
	caller
}

func (o ocsfCall) send(ctx context.Context, events []roster.Event) error {
	body, err := ocsfLines(o.fleet, events)
	if err != nil {
		return err
	}
	_, err = o.post(ctx, "application/x-ndjson", body)
	return err
}

// ocsfFile adds lines of JSON to a file. It is opened by its name each time,
// so that it may be moved away.
type ocsfFile struct{ fleet, file string }

func (o ocsfFile) send(_ context.Context, events []roster.Event) error {
	lines, err := ocsfLines(o.fleet, events)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(o.file, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640) //nolint:gosec // the operator names it, and its group may read
	if err != nil {
		return err
	}
	if err = o.mend(f); err == nil {
		_, err = f.Write(lines)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return durable.Names(filepath.Dir(o.file)) // the file may be new
}

// mend ends a line that a crash left half: what it was to say comes again.
func (o ocsfFile) mend(f *os.File) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, end-1); err != nil || last[0] == '\n' {
		return err
	}
	_, err = f.WriteString("\n")
	return err
}
