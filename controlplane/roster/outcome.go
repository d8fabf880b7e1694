package roster

import "curfew.internal/ledger"

// Outcomes of events, to search by. An event that is neither, such as the start
// of a program, has none.
const (
	WentWell = "ok"
	Refused  = "refused" // somebody or something was said no to
	Failed   = "failed"  // it did not come to a good end, or the record lacks something
)

// Outcomes lists them.
var Outcomes = []string{WentWell, Refused, Failed}

// refusing are the steps of a request that give nothing.
var refusing = map[string]bool{"denied": true, "withdrawn": true, "lapsed": true}

// Outcome says how what the event tells of came out.
func (v Event) Outcome() string {
	if v.Kind == Malformed {
		return Failed
	}
	if v.Deleted {
		return ""
	}
	e := v.Entry
	switch e.Kind {
	case ledger.Login, ledger.Installed:
		return WentWell
	case ledger.Refused, ledger.SetRefused:
		return Refused
	case ledger.Gap:
		return Failed
	case ledger.Terminal:
		if e.Lost > 0 {
			return Failed
		}
		return WentWell
	case ledger.Exit:
		if p := e.Process; p != nil && (p.ExitCode != 0 || p.Signal != 0) {
			return Failed
		}
		return WentWell
	case ledger.Removed:
		r, err := ledger.OpenReceipt(e.Receipt, v.ReceiptKey)
		return good(err == nil && v.ReceiptOK && r.Clean())
	case ledger.Leftovers:
		r, err := ledger.OpenLeftovers(e.Receipt, v.ReceiptKey)
		return good(err == nil && v.ReceiptOK && len(r.Left) == 0)
	case ledger.Decision:
		switch {
		case refusing[e.Step]:
			return Refused
		case e.Step == UnconfirmedStep:
			return Failed
		}
		return WentWell
	case ledger.SignIn:
		if e.Step == TurnedAway {
			return Refused
		}
		return WentWell
	case ledger.Witnessed:
		return good(e.Step == Cosigns)
	case ledger.Exec, ledger.SetID, ledger.Logout, ledger.Drift, ledger.Agent, ledger.Admin, ledger.Connect, ledger.Open, ledger.Act, ledger.Privilege,
		ledger.WouldRefuse, ledger.Sealed, ledger.Named:
	}
	return ""
}

func good(is bool) string {
	if is {
		return WentWell
	}
	return Failed
}
