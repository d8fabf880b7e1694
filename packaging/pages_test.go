package packaging

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"curfew.internal/test/lab"
)

// A block is a fenced part of a page that says who types it, or which file it
// is:
//
//	```sh db1            root types it on db1
//	```sh ana refused    ana does, and it has to fail
//	```sh db1 soon       it works a moment later
//	```yaml db1:/a/file  that file
//	```yaml cloud-init:web2  what web2 is told at its first boot
//	```text credential:web4:NAME  what web4 is handed when it boots again
type block struct {
	page string
	line int
	info []string
	text string
}

func (b block) String() string {
	return fmt.Sprintf("%s:%d: %s", b.page, b.line, strings.Join(b.info, " "))
}

// blocks are those of a page, in their order. A block of shell that nobody
// types would be one that nobody has tried.
func blocks(t *testing.T, page string) (all []block) {
	t.Helper()
	var in *block
	n := 0
	for line := range strings.Lines(read(t, filepath.Join(repository(t), page))) {
		n++
		mark, fence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case fence && in == nil:
			in = &block{page: page, line: n, info: strings.Fields(mark)}
		case fence:
			if len(in.info) > 1 {
				all = append(all, *in)
			} else if slices.Contains(in.info, "sh") {
				t.Errorf("%v: nobody types this: say who, or call it text", in)
			}
			in = nil
		case in != nil:
			in.text += line
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no block", page)
	}
	return all
}

// A town is where pages are typed: hosts by their names, and people who share
// a laptop and a folder on it.
type town struct {
	hosts  map[string]*lab.Host
	people []string
	play   func(ctx context.Context, script string) (string, error) // where Ansible is, and the CA
	data   func(ctx context.Context, script string) (string, error) // the owner of the database
	seen   map[string]string                                        // what the pages call REQUEST, GRANT, TOKEN and so on
}

// nicknames are what control planes are called by others.
var nicknames = map[string]string{"plane": "curfew.example", "plane2": "curfew.corp.example", "witness": "witness.example", "pg1": "shared.example", "pg2": "shared.example"}

const desk = "/srv/desk"

var ids = map[string]*regexp.Regexp{
	"REQUEST": requestID, "GRANT": grantID, "TOKEN": regexp.MustCompile(`curfew-join-[A-Za-z0-9_-]+`),
	"CERTIFICATE": regexp.MustCompile(`(?s)-----BEGIN .*-----END CERTIFICATE-----`), "PASSWORD": regexp.MustCompile(`db\.example:5432:curfew:curfew:[0-9a-f]+`),
}

// follow types a page.
func (w *town) follow(t *testing.T, page string) {
	t.Helper()
	for _, b := range blocks(t, page) {
		out, err := w.do(t.Context(), b)
		if err != nil {
			t.Fatalf("%v\n%s\n%v", b, b.text, err)
		}
		for name, id := range ids {
			if found := id.FindAllString(out, -1); len(found) > 0 {
				w.seen[name] = found[len(found)-1]
			}
		}
	}
}

func (w *town) do(ctx context.Context, b block) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	text := b.text
	for name, id := range w.seen {
		text = strings.ReplaceAll(text, name, id)
	}
	who := b.info[1]
	if host, ok := strings.CutPrefix(who, "cloud-init:"); ok {
		return "", cloudInit(ctx, w.hosts[host], text)
	}
	if to, ok := strings.CutPrefix(who, "credential:"); ok {
		name, credential, _ := strings.Cut(to, ":")
		h := w.hosts[name]
		return "", errors.Join(h.Give(credential, text), h.PowerOff(ctx), h.Start(ctx))
	}
	if host, file, ok := strings.Cut(who, ":"); ok {
		return "", w.hosts[host].Put(ctx, file, text, 0o644)
	}
	try := func() (string, error) { return w.types(ctx, who, text) }
	how := b.info[2:]
	switch {
	case slices.Contains(how, "refused"):
		out := ""
		return out, lab.Until(ctx, "a refusal", func() (err error) {
			if out, err = try(); err == nil {
				return fmt.Errorf("it was let through: %s", out)
			}
			return nil
		})
	case slices.Contains(how, "soon"):
		out := ""
		return out, lab.Until(ctx, "success", func() (err error) {
			out, err = try()
			return err
		})
	}
	return try()
}

// types runs a script as whoever it is.
func (w *town) types(ctx context.Context, who, script string) (string, error) {
	if slices.Contains(w.people, who) {
		if err := w.hosts["laptop"].Put(ctx, "/run/"+who+".sh", "cd "+desk+"\n"+script, 0o644); err != nil {
			return "", err
		}
		return w.hosts["laptop"].Sh(ctx, "runuser -u "+who+" -- env -C / HOME=/home/"+who+" bash -e -o pipefail /run/"+who+".sh 2>&1")
	}
	if who == "ansible" || who == "ca" {
		return w.play(ctx, script)
	}
	if who == "db" {
		return w.data(ctx, script)
	}
	h, ok := w.hosts[who]
	if !ok {
		return "", fmt.Errorf("nobody is called %s", who)
	}
	if err := h.Put(ctx, "/run/typed.sh", "cd\n"+script, 0o644); err != nil {
		return "", err
	}
	return h.Sh(ctx, "HOME=/root DEBIAN_FRONTEND=noninteractive bash -e -o pipefail /run/typed.sh 2>&1")
}

// seed is where cloud-init finds what a machine is told, where no cloud tells
// it. The network is the lab's, and its hosts have no locales.
const (
	seed    = "/var/lib/cloud/seed/nocloud/"
	noCloud = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\nlocale: C.UTF-8\n"
)

// cloudInit boots a machine with this much user data, for what is a first time
// to cloud-init.
func cloudInit(ctx context.Context, h *lab.Host, text string) error {
	for name, content := range map[string]string{
		seed + "user-data": text, seed + "meta-data": "instance-id: " + h.Name + "-1\nlocal-hostname: " + h.Name + "\ntier: web\n",
		"/etc/cloud/cloud.cfg.d/99-lab.cfg": noCloud,
	} {
		if err := h.Put(ctx, name, content, 0o600); err != nil {
			return err
		}
	}
	if out, err := h.Sh(ctx, "cloud-init clean"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := h.PowerOff(ctx); err != nil {
		return err
	}
	if err := h.Start(ctx); err != nil {
		return err
	}
	out, err := h.Sh(ctx, "cloud-init status --wait --long && cloud-init schema --system")
	if err != nil || !strings.Contains(out, "status: done") || !strings.Contains(out, "Valid cloud-config") {
		log, _ := h.Sh(ctx, "tail -n 50 /var/log/cloud-init-output.log; grep -E 'WARN|ERR' /var/log/cloud-init.log")
		return fmt.Errorf("cloud-init: %w: %s %s", err, out, log)
	}
	return nil
}

// settle gives people their laptop: a computer on which curfew is typed by
// hands that know the second factor, and from which cleo gets to the hosts as
// root, as before there was Curfew.
func (w *town) settle(t *testing.T, database string) {
	t.Helper()
	ctx := t.Context()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	laptop := w.hosts["laptop"]
	must := func(h *lab.Host, script string) string {
		out, err := h.Sh(ctx, script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := laptop.Put(ctx, "/usr/local/bin/curfew", string(b), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range w.people {
		must(laptop, "useradd -m -s /bin/bash "+p)
	}
	must(laptop, "install -d -m 1777 "+desk+` && runuser -u cleo -- sh -c 'ssh-keygen -q -N "" -t ed25519 -f ~/.ssh/id_ed25519; echo "StrictHostKeyChecking accept-new" > ~/.ssh/config'`)
	key := must(laptop, "cat /home/cleo/.ssh/id_ed25519.pub")
	names := database + " db.example\n"
	for name, h := range w.hosts {
		names += h.Address + " " + name + " " + nicknames[name] + "\n"
	}
	for _, h := range w.hosts {
		must(h, "printf '%s' '"+names+"' >> /etc/hosts; install -d -m 0700 /root/.ssh; printf '%s' '"+key+"' >> /root/.ssh/authorized_keys")
	}
}
