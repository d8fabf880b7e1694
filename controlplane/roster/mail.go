package roster

import (
	"errors"
	"net/mail"
	"regexp"
	"time"
)

// MaxEmail is how long an address of mail may be (RFC 5321, 4.5.3.1.3, without
// its brackets).
const MaxEmail = 254

// emailForm is an address without what has to be quoted, in ASCII: every mail
// server takes it, and nothing in it ends a line or a list.
var emailForm = regexp.MustCompile(`^[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]*$`)

// CheckEmail says what is wrong with an address of mail. An empty one is none.
func CheckEmail(s string) error {
	if s == "" {
		return nil
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > MaxEmail || !emailForm.MatchString(s) {
		return errors.New("mail address: write it like ana@example.com")
	}
	return nil
}

// A Mail is what one person is to be told by mail.
type Mail struct {
	ID      string // random; also that of the mail
	Target  string // that tells it
	What    string // the message: each person has it once from each target
	Request string // that it is about; empty: none
	Person  string
	At      time.Time
	Subject string
	Body    string
}
