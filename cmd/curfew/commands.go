package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/alecthomas/kong"

	"curfew.internal/completion"
	"curfew.internal/packaging/man"
)

// globals are flags of every command.
type globals struct {
	Output string `short:"o" enum:"text,json,ndjson,csv" default:"text" help:"How to print: text or json; audit search and tail also ndjson (an object a line) or csv."`
	Home   string `env:"CURFEW_HOME" type:"path" placeholder:"DIR" help:"Where the key and the session are kept; ~/.config/curfew."`
}

var groups = []kong.Group{
	{Key: "ask", Title: "Ask and act"},
	{Key: "decide", Title: "Decide"},
	{Key: "look", Title: "Look"},
	{Key: "admin", Title: "Administer"},
	{Key: "me", Title: "This computer"},
}

type commands struct {
	globals

	Roles    rolesCmd    `cmd:"" group:"ask" help:"List the roles that you may ask for."`
	Request  requestCmd  `cmd:"" group:"ask" help:"Ask for a role on hosts, and wait for the answer."`
	Extend   extendCmd   `cmd:"" group:"ask" help:"Ask for a later end of a grant."`
	Withdraw withdrawCmd `cmd:"" group:"ask" help:"Take a request back."`
	SSH      sshCmd      `cmd:"" name:"ssh" group:"ask" help:"Log in to a host under a live grant."`

	Requests requestsCmd `cmd:"" group:"decide" help:"List requests: yours, and those that wait for you."`
	Show     showCmd     `cmd:"" group:"decide" help:"Show one request: who, what, where, how long and why."`
	Approve  approveCmd  `cmd:"" group:"decide" help:"Approve somebody's request."`
	Comment  commentCmd  `cmd:"" group:"decide" help:"Say or ask something on a request."`
	Deny     denyCmd     `cmd:"" group:"decide" help:"Deny somebody's request."`
	Delegate delegateCmd `cmd:"" group:"decide" help:"Let somebody approve in your place while you are away."`
	Revoke   revokeCmd   `cmd:"" group:"decide" help:"End a grant now."`

	Timeline  timelineCmd  `cmd:"" group:"look" help:"Tell a grant's whole story."`
	Audit     auditCmd     `cmd:"" group:"look" help:"Search the record, watch it, or export it to be checked."`
	Terminals terminalsCmd `cmd:"" group:"look" help:"List recordings of terminals, or search in what they show."`
	Replay    replayCmd    `cmd:"" group:"look" help:"Play what a terminal showed."`
	Watch     watchCmd     `cmd:"" group:"look" help:"Look on while somebody works, and end it if need be."`
	Kill      killCmd      `cmd:"" group:"look" help:"End a session now."`
	Verify    verifyCmd    `cmd:"" group:"look" help:"Check an export of the record, offline."`
	Witness   witnessCmd   `cmd:"" group:"look" help:"Watch over logs for an auditor, and cosign them."`

	People peopleCmd `cmd:"" group:"admin" help:"Add, invite, disable and list people."`
	Hosts  hostsCmd  `cmd:"" group:"admin" help:"Let hosts join, list them, take them out."`
	Policy policyCmd `cmd:"" group:"admin" help:"Check a policy folder, or see the one in force."`
	Roster rosterCmd `cmd:"" group:"admin" help:"Draw up, sign and publish the roster of people's keys, which hosts check grants by."`

	Login      loginCmd      `cmd:"" group:"me" help:"Enrol with a code, or sign in again."`
	Logout     logoutCmd     `cmd:"" group:"me" help:"End the session."`
	Whoami     whoamiCmd     `cmd:"" group:"me" help:"Say who is signed in."`
	Pages      pagesCmd      `cmd:"" group:"me" help:"Print a link that signs a browser in to the server's pages, once."`
	Curl       curlCmd       `cmd:"" group:"me" help:"Call the API with JSON, signed as you."`
	Completion completionCmd `cmd:"" group:"me" help:"Print what makes your shell complete curfew's commands."`
	Version    versionCmd    `cmd:"" group:"me" help:"Print the version."`
	Man        man.Command   `cmd:"" hidden:"" help:"Print the manual page."`
}

type completionCmd struct{ completion.Cmd }

// Run prints what the shell reads.
func (c completionCmd) Run(_ context.Context, p *program) error { return c.Print(p.out) }

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(_ context.Context, p *program) error {
	if p.Output == "json" {
		return json.NewEncoder(p.out).Encode(map[string]string{"version": Version})
	}
	_, err := fmt.Fprintln(p.out, "curfew "+Version)
	return err
}
