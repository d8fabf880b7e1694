package vm

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"curfew.internal/test/lab"
)

// BenchmarkLock measures on an emulated machine what no other here can show:
// the end and the cost where programs may refuse, as LSM programs and as
// fmod_ret. An emulated machine is many times slower than its host: what counts
// is one figure over another of the same run.
func BenchmarkLock(b *testing.B) {
	kernel := versions[len(versions)-1]
	for _, lsm := range []bool{true, false} {
		b.Run(fmt.Sprintf("Linux %s, LSM %v", kernel, lsm), func(b *testing.B) {
			s := on(b, kernel, lsm)
			if got := s.mode(b); got != s.vm.mode() {
				b.Fatalf("the mode is %q, not %q", got, s.vm.mode())
			}
			b.Run("ends", s.ends)
			b.Run("storms", s.storms)
		})
	}
}

// ends says how late what runs under a grant ends.
func (s *scene) ends(b *testing.B) {
	var people []*lab.Person
	for _, name := range []string{"abe", "ana", "bea"} {
		people = append(people, s.person(b, name))
	}
	for _, e := range emulatedEnds {
		var late []time.Duration
		for _, p := range people {
			late = append(late, s.late(b, p, e))
		}
		b.Log(figure("a grant's end, "+e.name, late))
	}
}

// emulatedEnds are the faults that an end is measured with, and what she has
// running.
var emulatedEnds = []struct{ name, work, quiet, awake string }{
	{"agent alive -> last of 5 sleepers dead", sleepers, "true", "true"},
	{
		"agent killed, systemd's timer there -> last of 5 sleepers dead", sleepers,
		"systemctl mask --runtime curfew-agent; systemctl kill -s KILL curfew-agent", "systemctl unmask --runtime curfew-agent; systemctl start curfew-agent",
	},
	{
		"nothing of ours alive -> one that opens files for writing dead", "exec -a figure bash -c 'while :; do :>/tmp/figure; done' & disown",
		"systemctl mask --runtime curfew-agent curfew-sweep; systemctl stop curfew-sweep.timer; systemctl kill -s KILL curfew-agent",
		"systemctl unmask --runtime curfew-agent curfew-sweep; systemctl start curfew-agent curfew-sweep.timer",
	},
}

const sleepers = "for i in 1 2 3 4 5; do exec -a figure sleep 7300 & disown; done"

// late is how long after the end of her grant her last process is dead.
func (s *scene) late(b *testing.B, p *lab.Person, e struct{ name, work, quiet, awake string }) time.Duration {
	b.Helper()
	out, err := p.Prove(b.Context(), "request", "ops", "--on", "db1", "--for", "50s", "--no-wait", "-o", "json")
	if err != nil {
		b.Fatal(err)
	}
	var r struct {
		NotAfter time.Time `json:"not_after"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		b.Fatal(err)
	}
	id := grantID.FindString(out)
	s.until(b, "account "+p.Name, func() error {
		_, err := s.vm.Sh(b.Context(), "test -e /run/curfew/managed/"+p.Name+" && test -e /run/curfew/sudoers.d/"+id)
		return err
	})
	if out, err := s.ssh(b, p, "exec >/dev/null 2>&1 </dev/null; sudo -n env setsid bash -c "+quoted(e.work)); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	s.sh(b, "pgrep -f ^figure >/root/figures; "+e.quiet)
	if !time.Now().Before(r.NotAfter) {
		b.Fatal("it was not ready before the end: nothing would be measured")
	}
	dead := strings.TrimSpace(s.sh(b, "for p in $(cat /root/figures); do tail --pid=$p -s 0.01 -f /dev/null; done; echo ${EPOCHREALTIME/./}"))
	s.sh(b, e.awake)
	s.nothing(b, p.Name)
	return s.clock(b, dead).Sub(r.NotAfter) - s.ahead(b)
}

// ahead is by how much the machine's clock is before ours, which the control
// plane goes by: it begins with whole seconds. As good as half of what it takes to ask.
func (s *scene) ahead(b *testing.B) time.Duration {
	b.Helper()
	best, ahead := time.Hour, time.Duration(0)
	for range 10 {
		asked := time.Now()
		is := s.clock(b, s.sh(b, "echo ${EPOCHREALTIME/./}"))
		if took := time.Since(asked); took < best {
			best, ahead = took, is.Sub(asked.Add(took/2))
		}
	}
	return ahead
}

func (s *scene) clock(b *testing.B, us string) time.Time {
	b.Helper()
	at, err := strconv.ParseInt(strings.TrimSpace(us), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.UnixMicro(at)
}

func quoted(script string) string { return "'" + strings.ReplaceAll(script, "'", `'\''`) + "'" }

// storms starts 300 programs at a time: without us, beside us, and under us.
func (s *scene) storms(b *testing.B) {
	const storm = "#!/bin/bash\na=${EPOCHREALTIME/./}\nfor i in {1..300}; do /bin/true; done\necho storm $((${EPOCHREALTIME/./} - a))\n"
	if _, err := s.vm.Feed(b.Context(), storm, "cat >/usr/lib/lab/storm"); err != nil {
		b.Fatal(err)
	}
	p := s.person(b, "dan")
	id, _ := s.grant(b, p, time.Hour)
	kinds := []string{"absent", "not labelled", "labelled and recorded"}
	took := make([][]time.Duration, len(kinds))
	for r := range 8 {
		for k := range kinds {
			i := (r + k) % len(kinds)
			take := "systemctl start curfew-agent curfew-sweep.timer"
			if i == 0 {
				take = "systemctl stop curfew-sweep.timer curfew-sweep curfew-agent; rm -rf /sys/fs/bpf/curfew; ! test -e /sys/fs/bpf/curfew"
			}
			s.sh(b, take)
			took[i] = append(took[i], s.storm(b, p, i == 2))
		}
	}
	for i, k := range kinds {
		b.Log(figure("300 x fork+exec, "+k, took[i]))
		b.Logf("%s over absent, least: %.3f", k, float64(slices.Min(took[i]))/float64(slices.Min(took[0])))
	}
	s.sh(b, "systemctl start curfew-agent curfew-sweep.timer")
	for _, i := range []int{1, 2} {
		var own, all time.Duration
		for range 4 {
			before := s.spent(b)
			all += s.storm(b, p, i == 2)
			own += s.spent(b) - before
		}
		b.Logf("%s: of %v, programs of ours ran for %v: %.4f of the rest", kinds[i], all.Round(time.Millisecond), own.Round(time.Microsecond), float64(own)/float64(all-own))
	}
	s.end(b, id, p.Name)
}

// storm is how long one takes, in a call of sudo of hers or beside her.
func (s *scene) storm(b *testing.B, p *lab.Person, labelled bool) time.Duration {
	b.Helper()
	run := func() (string, error) { return s.vm.Sh(b.Context(), "bash /usr/lib/lab/storm") }
	if labelled {
		run = func() (string, error) { return s.ssh(b, p, "sudo -n env bash /usr/lib/lab/storm") }
	}
	out, err := run()
	m := stormed.FindStringSubmatch(out)
	if err != nil || m == nil {
		b.Fatalf("%v: %q", err, out)
	}
	us, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(us) * time.Microsecond
}

// spent is the time that the agent's programs have run for since the kernel
// counts it (sysctl/kernel.rst, bpf_stats_enabled): for as long as it is asked.
func (s *scene) spent(b *testing.B) time.Duration {
	b.Helper()
	out := s.sh(b, "sysctl -q kernel.bpf_stats_enabled=1; cat /proc/$(systemctl show -p MainPID --value curfew-agent)/fdinfo/* | awk '/^prog_id:/ {id = $2} /^run_time_ns:/ {t[id] = $2} END {for (i in t) s += t[i]; printf \"%.0f\", s}'")
	ns, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		b.Fatalf("%v: %q", err, out)
	}
	return time.Duration(ns)
}

var stormed = regexp.MustCompile(`(?m)^storm ([0-9]+)$`)

// figure prints what was measured.
func figure(what string, all []time.Duration) string {
	all = slices.Sorted(slices.Values(all))
	return fmt.Sprintf("%s: median %v, least %v, most %v, n=%d", what, all[len(all)/2].Round(time.Millisecond), all[0].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), len(all))
}
