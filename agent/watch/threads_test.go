package watch

import (
	"testing"

	"curfew.internal/ledger"
	"curfew.internal/test/need"
)

// The first thread ends and another one goes on: /proc shows such a process
// as a zombie, and it is none.
func TestAProcessWithoutItsFirstThreadIsKilled(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	s := python(t, `
import ctypes, threading, time
input()
def live():
    while True:
        print("alive", flush=True); time.sleep(0.01)
threading.Thread(target=live).start()
ctypes.CDLL(None).pthread_exit(None)
`)
	s.grow(t, w, 0x4001)
	for range 20 {
		s.hear(t)
	}
	if alive(s.Process.Pid) {
		t.Error("the first thread is still there: this tests nothing")
	}
	killed, left, err := killOne(t.Context(), w, 0x4001)
	if killed != 1 || len(left) > 0 || err != nil {
		t.Errorf("killed %d, left %v, %v", killed, left, err)
	}
	for err == nil {
		_, err = s.out.ReadString('\n') // until the end of the file
	}
}

func TestAnExitOfThreadsIsToldOnce(t *testing.T) {
	need.Root(t)
	w := open(t, pins(t))
	defer closeIt(t, w)
	b := &book{}
	defer run(t, w, b)()
	s := python(t, `
import os, threading, time
input()
for i in range(200):
    pid = os.fork()
    if pid == 0:
        for _ in range(6): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
        os._exit(4)
    os.waitpid(pid, 0)
`)
	s.grow(t, w, 0x4003)
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	until(t, "end", func() bool { return len(b.where(ledger.Exit, pid(s.Process.Pid))) == 1 })
	exits := b.where(ledger.Exit, func(e ledger.Entry) bool { return e.Process.ExitCode == 4 })
	if all := len(b.where(ledger.Exit, nil)); len(exits) != 200 || all != 201 {
		t.Errorf("%d exits, %d with 4", all, len(exits))
	}
}
