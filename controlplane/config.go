package controlplane

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"

	"curfew.internal/controlplane/cosign"
	"curfew.internal/controlplane/forward"
	"curfew.internal/controlplane/identity"
	"curfew.internal/controlplane/notify"
	"curfew.internal/controlplane/oncall"
	"curfew.internal/controlplane/scim"
	"curfew.internal/controlplane/store"
	"curfew.internal/grant"
)

// ConfigHelp shows the configuration file to people.
const ConfigHelp = `The configuration file is YAML; unknown keys are mistakes.

  fleet: prod                          # its name, in every grant
  url: https://curfew.example:7443     # where people's programs reach the server
  agents_url: https://...:7444         # where hosts do; the same name, port of agents
  listen: ":7443"                      # address of the people's API
  agents: ":7444"                      # address for hosts
  ops: 127.0.0.1:7445                  # /healthz /readyz /metrics: keep it on loopback
  data_dir: /var/lib/curfew-server     # database and keys
  store: postgres://...                # PostgreSQL in place of the database there; no password in it
  terminal_dir: /var/lib/curfew-server/terminals # recordings of terminals
  terminal_quota: 34359738368          # bytes that recordings of one host may take there
  policy_dir: /etc/curfew-server/policy
  tls_cert: ...                        # a certificate of your own for listen, with
  tls_key: ...                         # its chain up to the root
  forward:                             # who else gets the record: docs/audit.md
    - {name: siem, form: syslog, to: "tls://logs.example:6514"}
  retention:                           # how long it is told what sessions did
    default_days: 365
    role_days: {db-admin: 90}
  web:                                 # pages for people; without it there are none
    origin: https://curfew.example     # where browsers reach them: passkeys are bound to it
    listen: ":7446"                    # their address
    tls_cert: ...                      # a certificate that browsers trust
    tls_key: ...
  oidc:                                # where people sign in besides: docs/sign-in.md
    name: Example
    issuer: https://login.example
    client_id: curfew
    client_secret_file: /run/credentials/curfew-server.service/secret_oidc
  scim: {token_file: /run/credentials/curfew-server.service/secret_scim} # a directory keeps people: docs/directory.md
  log_tiles: true                      # show the log's checkpoint and digests at url/log/
  witnesses:                           # who cosigns the log: docs/witness.md
    - {key: witness.example+..., url: "https://witness.example:7450"}
  notify:                              # who is told of requests and alerts: docs/notify.md
    - {name: oncall, form: slack, to_file: /etc/curfew-server/slack}

SIGHUP reads the policy folder again; it is read when it changes, too.`

// terminalQuota is for the recordings of one host, so that none of them fills the
// disk of all.
const terminalQuota = 32 << 30

// Config is the server's configuration file.
type Config struct {
	// Fleet is the fleet's name; it stands in every grant and certificate,
	// and cannot be changed.
	Fleet string `yaml:"fleet"`
	// URL is where people's programs reach this server, such as
	// https://curfew.example:7443.
	URL string `yaml:"url"`
	// AgentsURL is where hosts reach it. Optional; the host of url with the
	// port of agents.
	AgentsURL string `yaml:"agents_url,omitempty"`
	// Listen is the address of the people's API. Optional; :7443.
	Listen string `yaml:"listen,omitempty"`
	// Agents is the address for hosts. Optional; :7444.
	Agents string `yaml:"agents,omitempty"`
	// Ops is the address of /healthz, /readyz and /metrics, which ask nobody
	// who they are: keep it on loopback. Optional; 127.0.0.1:7445.
	Ops string `yaml:"ops,omitempty"`
	// DataDir holds the database and the keys; only the server's user may
	// read it.
	DataDir string `yaml:"data_dir"`
	// Store is the URL of a PostgreSQL database, which several servers may
	// share, such as
	// postgres://curfew@db.example/curfew?sslmode=verify-full&passfile=/etc/curfew-server/pgpass.
	// A password stands in that file. Optional; SQLite in data_dir.
	Store string `yaml:"store,omitempty"`
	// TerminalDir holds what recordings of terminals show, in files. Optional;
	// terminals in data_dir.
	TerminalDir string `yaml:"terminal_dir,omitempty"`
	// TerminalQuota bounds what the recordings of one host take there, in bytes.
	// Beyond it the host keeps them until there is room, or gives them up and
	// tells so in the record. Optional; 32 GiB.
	TerminalQuota int64 `yaml:"terminal_quota,omitempty"`
	// PolicyDir holds the roles and who may ask for them; it is read again
	// whenever it changes.
	PolicyDir string `yaml:"policy_dir"`
	// TLSCert and TLSKey are PEM files with a certificate of your own for
	// the people's API, its chain up to the root included, which codes pin.
	// Optional; the server makes one from its own CA.
	TLSCert string `yaml:"tls_cert,omitempty"`
	TLSKey  string `yaml:"tls_key,omitempty"`
	// Forward lists who else gets the record, as syslog, OCSF or
	// OpenTelemetry logs. Optional.
	Forward []forward.Target `yaml:"forward,omitempty"`
	// Retention says how long what sessions did is told. Optional; for ever.
	Retention Retention `yaml:"retention,omitempty"`
	// Web are the pages for people. Optional; without it there are none.
	Web *Web `yaml:"web,omitempty"`
	// OIDC is an OpenID provider at which people sign in, besides passkeys and
	// codes. It needs web. Optional; people sign in here alone.
	OIDC *identity.ProviderConfig `yaml:"oidc,omitempty"`
	// SCIM lets a directory keep people and groups here. It needs web.
	// Optional; people are added by admins alone.
	SCIM *scim.Config `yaml:"scim,omitempty"`
	// LogTiles shows the checkpoint of the log over the record, and the digests
	// of its tree, at url/log/ to whoever reaches it, without a sign-in. What
	// entries say is not there. Optional; not shown.
	LogTiles bool `yaml:"log_tiles,omitempty"`
	// Witnesses lists who is asked to cosign the log. Optional.
	Witnesses []cosign.Target `yaml:"witnesses,omitempty"`
	// Notify lists who is told of requests and alerts, by chat, a webhook, or mail
	// to the people themselves. Optional.
	Notify []notify.Target `yaml:"notify,omitempty"`
	// OnCall says who is on call from elsewhere than the policy's files, where
	// these name a group {on_call: NAME}. Optional; nobody is.
	OnCall *oncall.Config `yaml:"on_call,omitempty"`
}

// Web is where the pages are.
type Web struct {
	// Origin is where browsers reach them, such as https://curfew.example or
	// https://curfew.example:7446. Passkeys are bound to its name: with
	// another one, everybody has to enrol again.
	Origin string `yaml:"origin"`
	// Listen is their address. Optional; :7446.
	Listen string `yaml:"listen,omitempty"`
	// TLSCert and TLSKey are PEM files with a certificate that browsers
	// trust: they refuse passkeys on a page whose certificate they do not.
	// Optional; that of the people's API, or one from the server's own CA.
	TLSCert string `yaml:"tls_cert,omitempty"`
	TLSKey  string `yaml:"tls_key,omitempty"`
}

func (w *Web) check() error {
	if w == nil {
		return nil
	}
	var errs []error
	u, err := url.Parse(w.Origin)
	if err != nil || u.Hostname() == "" || w.Origin != "https://"+strings.ToLower(u.Host) || u.Port() == "443" {
		errs = append(errs, errors.New("web.origin: write it like https://curfew.example, in small letters, with a port if it is not 443"))
	} else if net.ParseIP(u.Hostname()) != nil {
		errs = append(errs, errors.New("web.origin: write a name: passkeys are not bound to addresses"))
	}
	if _, _, err := net.SplitHostPort(w.Listen); err != nil {
		errs = append(errs, fmt.Errorf("web.listen: write ADDRESS:PORT or :PORT: %w", err))
	}
	if (w.TLSCert == "") != (w.TLSKey == "") {
		errs = append(errs, errors.New("web.tls_cert and web.tls_key go together"))
	}
	return errors.Join(errs...)
}

// ReadConfig reads the configuration file, and reports all that is wrong in
// it at once.
func ReadConfig(file string) (Config, error) {
	b, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	var c Config
	if err := yaml.UnmarshalWithOptions(b, &c, yaml.Strict()); err != nil {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	c.fill()
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// fill puts defaults where nothing is said.
func (c *Config) fill() {
	for to, v := range map[*string]string{&c.Listen: ":7443", &c.Agents: ":7444", &c.Ops: "127.0.0.1:7445"} {
		if *to == "" {
			*to = v
		}
	}
	if c.TerminalQuota == 0 {
		c.TerminalQuota = terminalQuota
	}
	if c.Web != nil && c.Web.Listen == "" {
		c.Web.Listen = ":7446"
	}
	if c.AgentsURL == "" {
		u, err := url.Parse(c.URL)
		_, port, perr := net.SplitHostPort(c.Agents)
		if err == nil && perr == nil {
			c.AgentsURL = "https://" + net.JoinHostPort(u.Hostname(), port)
		}
	}
}

func (c *Config) check() error {
	errs := []error{grant.CheckFleet(c.Fleet), checkURL("url", c.URL), checkURL("agents_url", c.AgentsURL), forward.Check(c.Forward), notify.Check(c.Notify), c.Retention.check(), c.Web.check(), c.OIDC.Check(), c.SCIM.Check(), cosign.Check(c.Witnesses), c.OnCall.Check()}
	if c.OIDC != nil && c.Web == nil {
		errs = append(errs, errors.New("oidc: needs web, whose pages the provider sends people back to"))
	}
	if c.SCIM != nil && c.Web == nil {
		errs = append(errs, errors.New("scim: needs web, at whose origin the directory calls"))
	}
	if c.SCIM != nil && c.OIDC != nil && c.OIDC.GroupsClaim+c.OIDC.ManagerClaim != "" {
		errs = append(errs, errors.New("oidc.groups_claim and oidc.manager_claim: leave them out: both come from the directory that scim lets in"))
	}
	for name, dir := range map[string]string{"data_dir": c.DataDir, "policy_dir": c.PolicyDir} {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("%s: write an absolute path", name))
		}
	}
	if c.TerminalQuota < 0 {
		errs = append(errs, errors.New("terminal_quota: write a number of bytes"))
	}
	if c.TerminalDir != "" && !filepath.IsAbs(c.TerminalDir) {
		errs = append(errs, errors.New("terminal_dir: write an absolute path"))
	}
	for name, addr := range map[string]string{"listen": c.Listen, "agents": c.Agents, "ops": c.Ops} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("%s: write ADDRESS:PORT or :PORT: %w", name, err))
		}
	}
	if c.Store != "" {
		if err := store.CheckURL(c.Store); err != nil {
			errs = append(errs, fmt.Errorf("store: %w", err))
		}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("tls_cert and tls_key go together"))
	}
	return errors.Join(errs...)
}

func checkURL(name, s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || u.Path != "" {
		return fmt.Errorf("%s: write it like https://curfew.example:7443", name)
	}
	return nil
}

// database is where the store is.
func (c *Config) database() string {
	if c.Store != "" {
		return c.Store
	}
	return filepath.Join(c.DataDir, "curfew.db")
}

// Files of the data folder.
func (c *Config) keys() string { return filepath.Join(c.DataDir, "keys") }

func (c *Config) terminals() string {
	if c.TerminalDir != "" {
		return c.TerminalDir
	}
	return filepath.Join(c.DataDir, "terminals")
}
func (c *Config) secrets() string { return filepath.Join(c.DataDir, "keys", "secrets.key") }
