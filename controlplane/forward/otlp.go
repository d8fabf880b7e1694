package forward

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	logsservice "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"curfew.internal/clock"
	"curfew.internal/controlplane/roster"
)

var numbers = map[gravity]logs.SeverityNumber{
	plain:   logs.SeverityNumber_SEVERITY_NUMBER_INFO,
	notable: logs.SeverityNumber_SEVERITY_NUMBER_INFO2,
	warning: logs.SeverityNumber_SEVERITY_NUMBER_WARN,
	grave:   logs.SeverityNumber_SEVERITY_NUMBER_ERROR,
}

// otlp posts OpenTelemetry logs, as protobuf over HTTP.
type otlp struct {
	fleet string
	caller
	clock clock.Clock
	log   *slog.Logger
}

func (o otlp) send(ctx context.Context, events []roster.Event) error {
	records := make([]*logs.LogRecord, len(events))
	now := uint64(max(0, o.clock.Now().Wall.UnixNano()))
	for i, v := range events {
		records[i] = logRecord(v, now)
	}
	body, err := proto.Marshal(&logsservice.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  &resource.Resource{Attributes: []*common.KeyValue{text("service.name", "curfew"), text("curfew.fleet", o.fleet)}},
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: "curfew.record"}, LogRecords: records}},
	}}})
	if err != nil {
		return err
	}
	answer, err := o.post(ctx, "application/x-protobuf", body)
	if err != nil {
		return err
	}
	var r logsservice.ExportLogsServiceResponse
	if err := proto.Unmarshal(answer, &r); err != nil {
		return fmt.Errorf("its answer is none of OTLP: %w", err)
	}
	// The protocol forbids to send again what was rejected for good.
	if p := r.GetPartialSuccess(); p.GetRejectedLogRecords() > 0 {
		o.log.ErrorContext(ctx, "alert: the collector rejected events for good: they are in the record only",
			"rejected", p.GetRejectedLogRecords(), "from", events[0].ID, "to", events[len(events)-1].ID, "cause", p.GetErrorMessage())
	}
	return nil
}

func logRecord(v roster.Event, now uint64) *logs.LogRecord {
	v = short(v)
	e := v.Entry
	g := gravityOf(v)
	r := &logs.LogRecord{
		TimeUnixNano: uint64(max(0, e.At.UnixNano())), ObservedTimeUnixNano: now,
		SeverityNumber: numbers[g], SeverityText: strings.TrimRight(strings.TrimPrefix(numbers[g].String(), "SEVERITY_NUMBER_"), "2"),
		EventName: "curfew." + v.Kind, Body: value(sentence(v)),
	}
	for _, kv := range [][2]string{
		{"host.name", v.Host},
		{"user.name", e.Person},
		{"curfew.grant", e.Grant},
		{"curfew.role", v.Role},
		{"curfew.request", e.Request},
		{"curfew.step", e.Step},
		{"curfew.outcome", v.Outcome()},
		{"curfew.service", e.Service},
		{"curfew.object", e.Object},
		{"curfew.boot", e.Boot},
	} {
		if kv[1] != "" {
			r.Attributes = append(r.Attributes, text(kv[0], kv[1]))
		}
	}
	r.Attributes = append(r.Attributes, number("curfew.entry", v.ID))
	if len(e.Approvers) > 0 {
		r.Attributes = append(r.Attributes, texts("curfew.approvers", e.Approvers))
	}
	if e.Session != 0 {
		r.Attributes = append(r.Attributes, text("curfew.session", fmt.Sprintf("%x", e.Session)), number("curfew.session_seq", e.SessionSeq))
	}
	if e.Lost > 0 {
		r.Attributes = append(r.Attributes, number("curfew.lost", e.Lost))
	}
	if v.Deleted {
		r.Attributes = append(r.Attributes, text("curfew.deleted", "true"))
	}
	if p := e.Process; p != nil {
		r.Attributes = append(r.Attributes, number("process.pid", uint64(p.PID)), number("process.parent_pid", uint64(p.PPID)),
			number("process.user.id", uint64(p.IDs.EUID)), text("process.executable.path", p.Path), texts("process.command_args", p.Argv),
			text("process.working_directory", p.Cwd))
		if v.Kind == "exit" {
			r.Attributes = append(r.Attributes, number("process.exit.code", uint64(p.ExitCode)))
		}
	}
	return r
}

func value(s string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.ToValidUTF8(s, "?")}}
}

func text(key, s string) *common.KeyValue { return &common.KeyValue{Key: key, Value: value(s)} }

func texts(key string, all []string) *common.KeyValue {
	a := &common.ArrayValue{}
	for _, s := range all {
		a.Values = append(a.Values, value(s))
	}
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_ArrayValue{ArrayValue: a}}}
}

func number(key string, n uint64) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(min(n, 1<<63-1))}}}
}
