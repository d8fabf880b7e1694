package roster

import (
	"fmt"
	"strings"
)

// Some are names in a sentence for people, with what joins them: few of them
// whole, and of more the first, and how many there are besides. A group may have
// thousands of people, and a request hosts.
func Some(names []string, joint string) string {
	const shown = 8
	if more := len(names) - shown; more > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], joint), more)
	}
	return strings.Join(names, joint)
}
