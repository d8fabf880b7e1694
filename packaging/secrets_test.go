package packaging

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"curfew.internal/test/lab"
	"curfew.internal/test/need"
)

// What the administrator brings, by its name in her folder of secrets. The
// password of the database is the machine's that keeps it.
var brought = map[string]string{
	"scim": "of-the-directory-of-32-characters", "oidc": "of-the-provider", "siem": "of-the-log-server", "hook": "http://127.0.0.1:9080/of-the-hook",
	"hook.key": "the key of the hook, which is long enough", "mail": "smtp://curfew:of-the-mail@127.0.0.1:9025/?from=curfew@example.org&to=oncall@example.org&auth=Plain&encryption=None&usestarttls=no",
}

// named is what server.yaml says of them.
const named = `web: {origin: "https://curfew.example:7446", tls_cert: /etc/curfew-server/web.pem, tls_key: DIR/secret_web.key}
scim: {token_file: DIR/secret_scim}
oidc: {name: Example, issuer: "https://login.example", client_id: curfew, client_secret_file: DIR/secret_oidc}
forward:
  - {name: siem, form: ocsf, to: "https://curfew.example:9443/of-the-log", ca_file: /etc/curfew-server/web.pem, token_file: DIR/secret_siem}
notify:
  - {name: hook, form: webhook, to_file: DIR/secret_hook, key_file: DIR/secret_hook.key}
  - {name: mail, form: shoutrrr, to_file: DIR/secret_mail}
`

// relieved lets cleo, who approves, be told of as somebody whom ben relieves.
const relieved = `labels: {tier: [db]}
roles:
  reader: {hosts: {tier: db}, commands: [/usr/bin/id], max_duration: 1h, approval: {by: [cleo], count: 1}, delegation: {up_to: 1d, to: [ben]}}
eligible: [{role: reader, people: [ben]}]
`

// stopped is what docs/decisions/0090-secrets.md says to type while no server
// runs.
const stopped = `systemctl stop curfew-server
systemd-run --quiet --wait --pipe -p User=curfew-server -p PrivateTmp=yes -p LoadCredential=secret:/etc/curfew-server-secrets sh -c '
sed "s,/run/credentials/curfew-server.service,$CREDENTIALS_DIRECTORY," /etc/curfew-server/server.yaml >/tmp/server.yaml
exec curfew-server restored --config /tmp/server.yaml --why "a try"' 2>&1 && systemctl start curfew-server`

// credentials are where the server finds all of them.
const credentials = "/run/credentials/curfew-server.service"

// TestSecrets has each secret that server.yaml may name handed to the running
// server by the package's unit, and by nothing else.
func TestSecrets(t *testing.T) {
	need.Nspawn(t)
	need.Program(t, "dpkg-deb", "gcc", "objdump", "openssl", "curl")
	home := t.TempDir()
	output(t.Context(), t, "dpkg-deb", "-x", packages(t, present(t), "curfew_*_amd64.deb")[0], home)
	if err := os.Symlink("usr/bin", filepath.Join(home, "bin")); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	s := &life{Fleet: &lab.Fleet{Lab: l, Repo: home, People: map[string]*lab.Person{}}}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := l.Join(t.Context(), lab.Place); err != nil {
		t.Fatal(err)
	}
	s.plane, err = l.Host(t.Context(), "plane",
		lab.File{Path: "/srv/server.deb", From: packages(t, present(t), "curfew-server_*_amd64.deb")[0], Mode: 0o644}, lab.File{Path: "/usr/local/bin/receiver", From: exe, Mode: 0o755})
	if err != nil {
		t.Fatal(err)
	}
	s.keeps(t)
	// The database answered: nobody else knows its password.
	s.sh(t, s.plane, "systemctl enable --now curfew-server")
	s.ready(t)
	s.sh(t, s.plane, "runuser -u curfew-server -- curfew-server join-token 2>&1") // those beside it, while it runs
	s.received(t)
	s.directory(t)
	s.sh(t, s.plane, stopped)
	s.ready(t)
}

// keeps installs the server and puts every secret where root keeps it.
func (s *life) keeps(t *testing.T) {
	t.Helper()
	address, data := database(t, s.Lab)
	said, err := data(t.Context(), blocks(t, "docs/postgresql.md")[0].text)
	if err != nil {
		t.Fatal(err)
	}
	s.URL = "https://" + s.plane.Address + ":7443"
	dir := t.TempDir()
	output(t.Context(), t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=curfew.example",
		"-addext", "subjectAltName=DNS:curfew.example", "-keyout", filepath.Join(dir, "key"), "-out", filepath.Join(dir, "pem"))
	s.certificate = filepath.Join(dir, "pem")
	s.sh(t, s.plane, "dpkg -i /srv/server.deb 2>&1; echo '"+address+" db.example\n127.0.0.1 curfew.example' >>/etc/hosts")
	const secrets = "/etc/curfew-server-secrets/"
	files := map[string]string{
		secrets + "web.key": read(t, filepath.Join(dir, "key")), secrets + "pgpass": ids["PASSWORD"].FindString(said) + "\n",
		"/etc/curfew-server/db.pem": ids["CERTIFICATE"].FindString(said), "/etc/curfew-server/web.pem": read(t, s.certificate),
	}
	for name, secret := range brought {
		files[secrets+name] = secret + "\n"
	}
	for name, text := range files {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, secrets) {
			mode = 0o400
		}
		if err := s.plane.Put(t.Context(), name, text, mode); err != nil {
			t.Fatal(err)
		}
	}
	// There is no unit yet that would hand anything over.
	s.code = strings.TrimSpace(s.sh(t, s.plane, "install -o curfew-server -m 0400 "+secrets+"pgpass /run/pgpass && runuser -u curfew-server -- curfew-server init --fleet example --url "+s.URL+
		" --admin cleo --store 'postgres://curfew@db.example/curfew?sslmode=verify-full&sslrootcert=/etc/curfew-server/db.pem&passfile=/run/pgpass' 2>/dev/null && rm /run/pgpass /etc/curfew-server/policy/* && sed -i s,/run/pgpass,"+
		credentials+"/secret_pgpass, /etc/curfew-server/server.yaml"))
	if err := s.plane.Put(t.Context(), "/etc/curfew-server/policy/policy.yaml", relieved, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.plane.Feed(t.Context(), strings.ReplaceAll(named, "DIR", credentials), "cat >>/etc/curfew-server/server.yaml"); err != nil {
		t.Fatal(err)
	}
	s.sh(t, s.plane, "cp "+secrets+"web.key /etc/curfew-server/web.pem /run/ && systemd-run --quiet --unit=receiver /usr/local/bin/receiver")
	s.until(t, "the receiver", func() error {
		_, err := s.plane.Sh(t.Context(), "ls /run/got/ready")
		return err
	})
}

// received waits until each receiver has been told the secret that is its own.
func (s *life) received(t *testing.T) {
	t.Helper()
	if _, err := s.Enrol(t.Context(), "cleo", s.code); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Invite(t.Context(), "ben", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.People["cleo"].Prove(t.Context(), "delegate", "to", "ben", "--for", "1h"); err != nil { // is told
		t.Fatal(err)
	}
	for _, want := range []string{"POST /of-the-log Bearer of-the-log-server", "POST /of-the-hook v1,", "AUTH PLAIN AGN1cmZldwBvZi10aGUtbWFpbA=="} {
		s.until(t, want, func() error {
			_, err := s.plane.Sh(t.Context(), "grep -rF '"+want+"' /run/got || { cat /run/got/*; journalctl -u curfew-server -n 30; false; }")
			return err
		})
	}
}

// directory: the server knows the directory by its token.
func (s *life) directory(t *testing.T) {
	t.Helper()
	for token, want := range map[string]string{brought["scim"]: "200", strings.ToUpper(brought["scim"]): "401"} {
		cmd := s.In(t.Context(), lab.Place, "curl", "--silent", "--cacert", s.certificate, "--resolve", "curfew.example:7446:"+s.plane.Address, "--output", "/dev/null", "--write-out", "%{http_code}",
			"--header", "Authorization: Bearer "+token, "https://curfew.example:7446/scim/v2/Users")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("the directory with %s: %v %s", token, err, out)
		}
	}
}

// receive is who is told: a hook and a log server, which write down by which
// secret they were, and one who takes mail.
func receive() error {
	if err := os.MkdirAll("/run/got", 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile("/run/got/told", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	mail, err := net.Listen("tcp", "127.0.0.1:9025")
	if err != nil {
		return err
	}
	var g errgroup.Group
	told := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintln(f, r.Method, r.URL.Path, r.Header.Get("Authorization")+r.Header.Get("Webhook-Signature"))
	})
	g.Go(func() error { return http.ListenAndServe("127.0.0.1:9080", told) })
	g.Go(func() error { return http.ListenAndServeTLS("127.0.0.1:9443", "/run/web.pem", "/run/web.key", told) })
	g.Go(func() error {
		for {
			c, err := mail.Accept()
			if err != nil {
				return err
			}
			g.Go(func() error { return errors.Join(takeMail(c, f), c.Close()) })
		}
	})
	if err := os.WriteFile("/run/got/ready", nil, 0o600); err != nil {
		return err
	}
	return g.Wait()
}

// takeMail plays a mail server that asks who is there.
func takeMail(c net.Conn, told io.Writer) error {
	answers := map[string]string{"EHLO": "250-here\r\n250 AUTH PLAIN", "AUTH": "235 known", "DATA": "354 go on", "QUIT": "221 bye"}
	in := bufio.NewScanner(c)
	_, err := io.WriteString(c, "220 here\r\n")
	for data := false; err == nil && in.Scan(); {
		line := in.Text()
		if data && line != "." {
			continue
		}
		word, _, _ := strings.Cut(line, " ")
		data = word == "DATA"
		answer := answers[word]
		if answer == "" {
			answer = "250 so be it"
		}
		_, err = fmt.Fprintln(told, line)
		if err == nil {
			_, err = io.WriteString(c, answer+"\r\n")
		}
	}
	return err
}
