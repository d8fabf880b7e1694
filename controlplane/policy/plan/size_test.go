package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"curfew.internal/controlplane/policy"
	"curfew.internal/controlplane/roster"
)

// large is a policy of 1,000 roles and 10,000 people, each in ten groups.
func large() map[string][]byte {
	files := map[string][]byte{}
	for part := range 20 {
		var b strings.Builder
		if part == 0 {
			b.WriteString("labels: {tier: [db, web]}\n")
		}
		b.WriteString("groups:\n")
		for i := part * 50; i < part*50+50; i++ {
			fmt.Fprintf(&b, "  g%d: [", i)
			for n := range 100 {
				fmt.Fprintf(&b, "p%d, ", (i*97+n*101)%10000)
			}
			b.WriteString("lead]\n")
		}
		b.WriteString("roles:\n")
		for i := part * 50; i < part*50+50; i++ {
			fmt.Fprintf(&b, "  r%d:\n    hosts: {tier: db}\n    commands: [/usr/bin/systemctl restart x%d]\n    max_duration: 1h\n    approval: {by: [group:g%d]}\n", i, i, (i+1)%1000)
		}
		b.WriteString("eligible:\n")
		for i := part * 50; i < part*50+50; i++ {
			fmt.Fprintf(&b, "  - {role: r%d, groups: [g%d]}\n", i, i)
		}
		files[fmt.Sprintf("p%02d.yaml", part)] = []byte(b.String())
	}
	return files
}

func BenchmarkLarge(b *testing.B) {
	files := large()
	from, problems := policy.Parse(files)
	if !policy.Holds(problems) {
		b.Fatal(problems[0])
	}
	changed := map[string][]byte{}
	for name, text := range files {
		changed[name] = []byte(strings.ReplaceAll(string(text), "max_duration: 1h", "max_duration: 2h"))
	}
	to, _ := policy.Parse(changed)
	hosts := []roster.Host{{Name: "db1", Labels: map[string]string{"tier": "db"}}}
	q := roster.Question{Person: "lead", Role: "r999", Hosts: []string{"db1"}, Duration: time.Hour, Reason: "x"}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			policy.Parse(files)
		}
	})
	b.Run("judge", func(b *testing.B) {
		for b.Loop() {
			if _, err := from.Judge(q, hosts, noon); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("explain", func(b *testing.B) {
		for b.Loop() {
			from.Explain(policy.Case{Person: "lead", Role: "r999", At: noon})
		}
	})
	b.Run("plan", func(b *testing.B) {
		for b.Loop() {
			if n := len(Compare(from, to, noon)); n != 1000 {
				b.Fatal(n)
			}
		}
	})
}
