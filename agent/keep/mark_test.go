package keep

import (
	"testing"
	"time"

	"curfew.internal/clock"
)

func TestTimeIsPutRight(t *testing.T) {
	for _, c := range []struct {
		name  string
		wall  time.Duration // of the wall clock, after start
		said  time.Duration
		by    time.Duration
		after time.Duration // what is trusted then
	}{
		{name: "the wall clock is right again", wall: 0, said: 0, by: time.Hour, after: 0},
		{name: "the wall clock is still ahead", wall: time.Hour, said: 0, by: 0, after: time.Hour},
		{name: "the wall clock is ahead by less", wall: time.Minute, said: 0, by: 59 * time.Minute, after: time.Minute},
		{name: "the wall clock is behind", wall: -time.Hour, said: time.Minute, by: 59 * time.Minute, after: time.Minute},
		{name: "the control plane is ahead", wall: 0, said: 2 * time.Hour, by: 0, after: time.Hour},
		{name: "a few seconds are no matter", wall: 0, said: time.Hour - 4*time.Second, by: 0, after: time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			k := open(t, dir)
			k.Trusted(clock.Reading{Wall: start.Add(time.Hour), Boot: time.Hour}) // set forward
			if _, err := k.Accept(ring(1, root, keyA), set(1, "db1", keyA), start.Add(59*time.Minute)); err != nil {
				t.Fatal(err)
			}
			now := clock.Reading{Wall: start.Add(c.wall), Boot: time.Hour}
			by, err := k.Correct(now, start.Add(c.said), 5*time.Second)
			if got := k.Trusted(now).Sub(start); err != nil || by != c.by || got != c.after {
				t.Errorf("put right by %v to %v, %v", by, got, err)
			}
			die(k)
			again := open(t, dir)
			if got := again.Trusted(now).Sub(start); by > 0 && got != c.after {
				t.Errorf("after a restart it is %v", got)
			}
			o, err := again.Kept()
			if err != nil {
				t.Error(err)
			}
			wantGrants(t, o, 1)
		})
	}
}

func TestEarliestIsWhatWasSaidAndTheTimeSince(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	at := func(wall, boot time.Duration) time.Duration {
		return k.Earliest(clock.Reading{Wall: start.Add(wall), Boot: time.Hour + boot}).Sub(start)
	}
	if got := at(time.Hour, 0); got != time.Hour {
		t.Errorf("never told, it is at least %v", got)
	}
	if raised, err := k.Told(clock.Reading{Wall: start.Add(time.Hour), Boot: time.Hour}, start); err != nil || raised != 0 {
		t.Errorf("raised by %v, %v", raised, err)
	}
	if got := at(time.Hour, 10*time.Minute); got != 10*time.Minute {
		t.Errorf("10 minutes after it was told, it is at least %v", got)
	}
	if got := at(time.Hour, 10*time.Hour); got != 10*time.Hour {
		t.Errorf("10 hours after, %v", got)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	c := config(dir, &fixed{clock.Reading{Wall: start, Boot: time.Minute}})
	c.Boot = "boot-2"
	k, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer die(k)
	if got := k.Earliest(clock.Reading{Wall: start.Add(48 * time.Hour), Boot: time.Minute}).Sub(start); got != time.Minute {
		t.Errorf("a minute after the next boot it is at least %v", got)
	}
}

func TestTimeIsNoEarlierThanWasSaid(t *testing.T) {
	for _, c := range []struct {
		name   string
		said   time.Duration // after the wall clock
		raised time.Duration
	}{
		{"the wall clock is behind", 40 * time.Minute, 40 * time.Minute},
		{"the wall clock is right", 0, 0},
		{"the wall clock is ahead", -time.Hour, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			k := open(t, dir)
			now := clock.Reading{Wall: start, Boot: time.Hour}
			if raised, err := k.Told(now, start.Add(c.said)); err != nil || raised != c.raised {
				t.Errorf("raised by %v, %v", raised, err)
			}
			later := clock.Reading{Wall: start.Add(time.Minute), Boot: time.Hour + time.Minute}
			if got := k.Trusted(later).Sub(start); got != c.raised+time.Minute {
				t.Errorf("a minute later it is %v", got)
			}
			die(k)
			if got := open(t, dir).Trusted(later).Sub(start); got != c.raised+time.Minute {
				t.Errorf("after the death of the agent it is %v", got)
			}
		})
	}
}
