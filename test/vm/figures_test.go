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

// ends says how late what runs under a grant ends. Who has one process running
// ends beside others, and who has 200 by herself.
func (s *scene) ends(b *testing.B) {
	people := []*lab.Person{s.person(b, "abe"), s.person(b, "ana"), s.person(b, "bea")}
	for _, fault := range emulatedFaults {
		for _, w := range fault.works {
			var late []time.Duration
			for beside := range slices.Chunk(people, max(1, len(people)/w.n)) {
				late = append(late, s.late(b, beside, fault.quiet, fault.awake, w)...)
			}
			b.Log(figure("a grant's end, "+fault.name+" -> last of "+w.name+" dead", late))
		}
	}
}

// A running is what she has running.
type running struct {
	name   string
	n      int
	script string // of each
}

// Spinning processes begin to when nobody needs the machine any more.
const (
	sleeping = "exec -a figure-$1 sleep 7300"
	spinning = `exec -a figure-$1 bash -c "read -t $(($2 - EPOCHSECONDS)) -u 9; while :; do :; done"`
	writing  = "exec -a figure-$1 bash -c 'while :; do :>/tmp/figure; done'"
)

var (
	works = []running{{"1 sleeping", 1, sleeping}, {"200 sleeping", 200, sleeping}, {"1 spinning", 1, spinning}, {"200 spinning", 200, spinning}}

	// emulatedFaults are the faults that an end is measured with.
	emulatedFaults = []struct {
		name, quiet, awake string
		works              []running
	}{
		{"agent alive", "true", "true", works},
		{
			"agent killed", "systemctl mask --runtime curfew-agent; systemctl kill -s KILL curfew-agent",
			"systemctl unmask --runtime curfew-agent; systemctl start curfew-agent", works,
		},
		{
			"agent stopped", "systemctl mask --runtime curfew-agent; systemctl kill -s STOP curfew-agent",
			"systemctl kill -s KILL curfew-agent; systemctl unmask --runtime curfew-agent; systemctl start curfew-agent", works,
		},
		{
			"nothing of ours alive", "systemctl mask --runtime curfew-agent curfew-sweep; systemctl stop curfew-sweep.timer; systemctl kill -s KILL curfew-agent",
			"systemctl unmask --runtime curfew-agent curfew-sweep; systemctl start curfew-agent curfew-sweep.timer",
			[]running{{"1 that opens files for writing", 1, writing}},
		},
	}
)

// late is how long after the end of her grant each one's last process is dead.
func (s *scene) late(b *testing.B, people []*lab.Person, quiet, awake string, w running) (late []time.Duration) {
	b.Helper()
	ends := map[string]time.Time{}
	for _, p := range people {
		ends[p.Name] = s.busy(b, p, w, 60*time.Second+time.Duration(len(people))*30*time.Second)
	}
	s.sh(b, quiet)
	for name, end := range ends {
		if !time.Now().Before(end.Add(-5 * time.Second)) {
			b.Fatalf("%s was not ready before the end: nothing would be measured", name)
		}
	}
	for line := range strings.Lines(s.sh(b, "chrt -f 1 bash -c "+quoted(lastDead))) {
		name, dead, _ := strings.Cut(strings.TrimSpace(line), " ")
		late = append(late, s.clock(b, dead).Sub(ends[name])-s.ahead(b))
	}
	s.sh(b, awake)
	for _, p := range people {
		s.nothing(b, p.Name)
	}
	return late
}

// busy has her run something under a grant that lasts as long, and says when it ends.
func (s *scene) busy(b *testing.B, p *lab.Person, w running, lasts time.Duration) time.Time {
	b.Helper()
	out, err := p.Prove(b.Context(), "request", "ops", "--on", "db1", "--for", lasts.String(), "--no-wait", "-o", "json")
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
	each := strings.NewReplacer("$1", p.Name, "$2", strconv.FormatInt(r.NotAfter.Unix()-4, 10)).Replace(w.script)
	start := fmt.Sprintf("mkfifo /tmp/never; exec 9<>/tmp/never; rm /tmp/never; for ((i = 0; i < %d; i++)); do (%s) & disown; done", w.n, each)
	if out, err := s.ssh(b, p, "exec >/dev/null 2>&1 </dev/null; sudo -n env setsid bash -c "+quoted(start)); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	s.until(b, "what she has running", func() error {
		out, err := s.vm.Sh(b.Context(), "mkdir -p /run/figures; pgrep -f ^figure-"+p.Name+" >/run/figures/"+p.Name+"; wc -l </run/figures/"+p.Name)
		if n := strings.TrimSpace(out); err == nil && n != strconv.Itoa(w.n) {
			err = fmt.Errorf("%s run, not %d", n, w.n)
		}
		return err
	})
	return r.NotAfter
}

// lastDead says when each one's last process is dead, goes before what spins,
// and starts nothing meanwhile. Who is dead is a zombie until systemd gets to it.
const lastDead = `cd /run/figures; mkfifo ../never; exec 9<>../never; rm ../never
for name in *; do (for p in $(<$name); do while read -r _ _ state _ 2>/dev/null </proc/$p/stat && [ $state != Z ]; do read -t 0.01 -u 9; done; done; echo $name ${EPOCHREALTIME/./}) & done; wait; rm *`

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
