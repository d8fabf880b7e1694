package host

import (
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"

	"curfew.internal/agent/host/tree"
)

// endIn is the end that a timer's file stands for, where that and its service's
// say what we had systemd write and nothing else. Root may have put there what
// keeps who opens it waiting, such as a pipe: that is spoiled. The service's file
// is there for as long as the timer's, and so is read first.
func endIn(name string) (string, error) {
	does, _, failed := readWhole(name+".service", 0)
	text, _, err := readWhole(name+timerSuffix, 0)
	if err = ignore(err, tree.ErrMounted); err != nil {
		return "", err
	}
	if err := ignore(ignore(failed, tree.ErrMounted), fs.ErrNotExist); err != nil {
		return "", err
	}
	if !doesTheEnd(does) {
		return spoiled, nil
	}
	return endOf(text), nil
}

// endOf reads the end that a timer's file stands for; what is no such file, or
// sets more, such as another unit to start, is spoiled.
func endOf(text string) string {
	set, ok := settings(text, map[string]string{
		"Unit.Description": timerIs, "Unit.IgnoreOnIsolate": "yes", "Timer.AccuracySec": "1ms", "Timer.RemainAfterElapse": "no",
	}, "Timer.OnCalendar", "Timer.OnActiveSec")
	if at := set["Timer.OnCalendar"]; ok && len(at) == 1 {
		if t, err := time.Parse("2006-01-02 15:04:05.999999 MST", at[0]); err == nil {
			return t.Add(-late).Format(time.DateTime)
		}
	}
	return spoiled
}

// doesTheEnd reports whether the file is that of a service which does what atEnd
// says. Some versions of systemd name the program beside its first argument.
func doesTheEnd(text string) bool {
	const exec = "Service.ExecStart"
	set, ok := settings(text, map[string]string{
		"Unit.Description": serviceIs, "Unit.CollectMode": "inactive-or-failed", "Service.Type": "oneshot",
	}, exec)
	runs := set[exec]
	if len(runs) > 0 && runs[0] == "" {
		runs = runs[1:] // before it, there was nothing
	}
	return ok && slices.EqualFunc(runs, atEnd, func(line string, c command) bool {
		line = strings.ReplaceAll(line, `"`, "")
		return strings.Replace(line, "@"+c.Path+" ", "", 1) == "-"+strings.Join(c.Args, " ")
	})
}

// settings are those of a unit's file (systemd.syntax(7)) by section and name, and
// whether they are these, once each, and of all others only some of free.
func settings(text string, fixed map[string]string, free ...string) (map[string][]string, bool) {
	options, err := unit.DeserializeOptions(strings.NewReader(text))
	if err != nil {
		return nil, false
	}
	set := map[string][]string{}
	for _, o := range options {
		name := o.Section + "." + o.Name
		if _, ok := fixed[name]; !ok && !slices.Contains(free, name) {
			return nil, false
		}
		set[name] = append(set[name], o.Value)
	}
	for name, value := range fixed {
		if !slices.Equal(set[name], []string{value}) {
			return nil, false
		}
	}
	return set, true
}
