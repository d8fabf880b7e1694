package roster

import (
	"strings"

	"golang.org/x/text/unicode/norm"
)

// Letters are a text's as a search compares them: small ones, and composed, so that
// é is the same whether it was written as a letter or as an e with an accent. Some
// have a composed form only once they are small.
func Letters(text string) string {
	return norm.NFC.String(strings.ToLower(norm.NFC.String(text)))
}
