package condition

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// during is whether an instant is in a window of the week, as the clocks of a
// zone show it: begin.during('mon-fri 08:00-18:00', 'Europe/Berlin').
var during = cel.Function("during", cel.MemberOverload("during_window", []*cel.Type{cel.TimestampType, cel.StringType, cel.StringType}, cel.BoolType,
	cel.FunctionBinding(func(args ...ref.Val) ref.Val {
		at, ok := args[0].Value().(time.Time)
		window, isText := args[1].Value().(string)
		zone, isName := args[2].Value().(string)
		if !ok || !isText || !isName {
			return types.NewErr("during takes a window and a zone")
		}
		w, err := parseWindow(window)
		if err != nil {
			return types.WrapErr(err)
		}
		in, err := Zone(zone)
		if err != nil {
			return types.WrapErr(err)
		}
		return types.Bool(w.has(at.In(in)))
	})))

// inside is whether an address is in a network: source.inside('10.0.0.0/8').
var inside = cel.Function("inside", cel.MemberOverload("inside_network", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
	cel.BinaryBinding(func(address, network ref.Val) ref.Val {
		from, ok := address.Value().(string)
		of, isText := network.Value().(string)
		if !ok || !isText {
			return types.NewErr("inside takes a network")
		}
		if from == "" {
			return types.NewErr("the address from which it is asked is not known")
		}
		a, err := netip.ParseAddr(from)
		if err != nil {
			return types.WrapErr(err)
		}
		n, err := parseNetwork(of)
		if err != nil {
			return types.WrapErr(err)
		}
		return types.Bool(n.Contains(a.Unmap().WithZone("")))
	})))

// written holds windows, zones and networks to what is written: a slip in one
// is told when the policy is read, and not when somebody asks.
type written struct{}

// Name is for CEL.
func (written) Name() string { return "curfew.written" }

// Validate is for CEL.
func (written) Validate(_ *cel.Env, _ cel.ValidatorConfig, tree *ast.AST, issues *cel.Issues) {
	wrong := func(e ast.Expr, parse func(string) error) {
		s, ok := literal(e)
		if !ok {
			issues.ReportErrorAtID(e.ID(), "write it in quotes: what is put together is not read")
			return
		}
		if err := parse(s); err != nil {
			issues.ReportErrorAtID(e.ID(), "%s", err)
		}
	}
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		switch args := e.AsCall().Args(); {
		case e.AsCall().FunctionName() == "during" && len(args) == 2:
			wrong(args[0], func(s string) error { _, err := parseWindow(s); return err })
			wrong(args[1], func(s string) error { _, err := Zone(s); return err })
		case e.AsCall().FunctionName() == "inside" && len(args) == 1:
			wrong(args[0], func(s string) error { _, err := parseNetwork(s); return err })
		}
	}))
}

// Zone reads the name of a time zone. That of the machine is none: two
// servers could have two.
func Zone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("%.40q is no time zone: write one like Europe/Berlin, or UTC", name)
	}
	in, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%.40q is no time zone: write one like Europe/Berlin, or UTC", name)
	}
	return in, nil
}

// parseNetwork reads a network.
func parseNetwork(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil || n != n.Masked() || n.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%.60q is no network: write one like 10.0.0.0/8 or 2001:db8::/32, with no bits after its length", s)
	}
	return n, nil
}

// A window is a time of some days of each week, by a clock on the wall. One
// that ends no later than it begins goes on into the next day.
type window struct {
	days     [7]bool // by time.Weekday: on which it begins
	from, to int     // seconds of the day, both within
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseWindow reads DAYS HH:MM-HH:MM; DAYS is daily, or days and spans of days
// like mon-fri,sun.
func parseWindow(s string) (window, error) {
	no := fmt.Errorf("%.60q is no window: write one like 'mon-fri 08:00-18:00' or 'daily 22:00-06:00'", s)
	var w window
	days, hours, ok := strings.Cut(s, " ")
	from, to, both := strings.Cut(hours, "-")
	if !ok || !both {
		return w, no
	}
	if days == "daily" {
		days = "sun-sat"
	}
	for part := range strings.SplitSeq(days, ",") {
		first, last, span := strings.Cut(part, "-")
		if !span {
			last = first
		}
		a, b := slices.Index(weekdays, first), slices.Index(weekdays, last)
		if a < 0 || b < 0 {
			return w, no
		}
		for d := a; ; d = (d + 1) % 7 {
			w.days[d] = true
			if d == b {
				break
			}
		}
	}
	var known bool
	if w.from, known = clockTime(from); !known || w.from == day {
		return w, no
	}
	if w.to, known = clockTime(to); !known || w.to == w.from {
		return w, no
	}
	return w, nil
}

const day = 24 * 60 * 60

// clockTime reads HH:MM up to 24:00.
func clockTime(s string) (seconds int, ok bool) {
	if s == "24:00" {
		return day, true
	}
	t, err := time.Parse("15:04", s)
	return t.Hour()*3600 + t.Minute()*60, err == nil && len(s) == len("15:04")
}

// has reports whether the window is open when clocks show that. An hour that
// clocks show twice is in it twice, one that they pass over not at all.
func (w window) has(shown time.Time) bool {
	now := shown.Hour()*3600 + shown.Minute()*60 + shown.Second()
	today, before := w.days[shown.Weekday()], w.days[(shown.Weekday()+6)%7]
	upTo := now < w.to || now == w.to && shown.Nanosecond() == 0
	if w.from < w.to {
		return today && now >= w.from && upTo || w.to == day && before && now == 0 && shown.Nanosecond() == 0
	}
	return today && now >= w.from || before && upTo
}
