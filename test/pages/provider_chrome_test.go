package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"testing"
)

// keyOf is the hash of the key that a certificate is for.
func keyOf(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// A real browser keeps our cookie back from what another site leads to, the
// provider included, and comes again by itself.
func TestChromiumSignsInAtTheProvider(t *testing.T) {
	w, p := withProvider(t)
	pin, err := w.pin(t.Context())
	must(t, err)
	c := startChrome(t, pin+","+keyOf(t, p.CAFile))
	ana := invited(t, w, c, "ana", "Ana Ortiz", desktop)
	signIn := func(v *tab) {
		v.visit("/sign-in")
		v.click("a[href^='/sign-in/away']")
	}
	signIn(ana)
	ana.sees("Is this you?")
	ana.click("[data-passkey]")
	ana.sees("Hello")
	again := c.open(t, w.origin, phone)
	signIn(again)
	again.sees("Hello")
}
