package scim

import (
	"bytes"
	"encoding/json"
	"strings"
)

// tidied is a body in which a manager has the form of the standard. Entra ID
// writes her id alone, or a list with her in it; one such would have the whole
// PATCH refused, and with it what else it says, as that somebody is gone.
func tidied(body []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v map[string]any
	if d.Decode(&v) != nil || d.More() {
		return body // which the library refuses
	}
	tidy(v)
	for key, list := range v {
		operations, _ := list.([]any)
		if !strings.EqualFold(key, "Operations") {
			continue
		}
		for _, o := range operations {
			if o, ok := o.(map[string]any); ok {
				tidyOperation(o)
			}
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return body
	}
	return b
}

func tidyOperation(o map[string]any) {
	ofManager := false
	for key, v := range o {
		path, _ := v.(string)
		ofManager = ofManager || strings.EqualFold(key, "path") && strings.EqualFold(path, enterprise+":manager")
	}
	for key, v := range o {
		if !strings.EqualFold(key, "value") {
			continue
		}
		if attributes, ok := v.(map[string]any); ok && !ofManager {
			tidy(attributes)
		} else if ofManager {
			o[key] = manager(v)
		}
	}
}

// tidy puts right the manager among a user's attributes.
func tidy(attributes map[string]any) {
	for key, v := range attributes {
		switch {
		case strings.EqualFold(key, enterprise+":manager"):
			attributes[key] = manager(v)
		case strings.EqualFold(key, enterprise):
			more, _ := v.(map[string]any)
			for name, v := range more {
				if strings.EqualFold(name, "manager") {
					more[name] = manager(v)
				}
			}
		}
	}
}

func manager(v any) any {
	switch v := v.(type) {
	case string:
		return map[string]any{"value": v}
	case []any:
		if len(v) == 1 {
			return manager(v[0])
		}
	}
	return v
}
