package scim

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// tidied is a body without what the library refuses, and with it all else that
// a PATCH says, as that somebody is gone. A manager has the form of the standard,
// where Entra ID writes her id alone, or a list with her in it. What has no value
// is removed (RFC 7643, 2.5), and what is of a schema that we do not know is left
// out: we keep none of it. That somebody is active or not may be wrapped.
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
		var all []any
		for _, o := range operations {
			one, ok := o.(map[string]any)
			if !ok {
				return body // which the library refuses
			}
			tidyOperation(one)
			all = append(all, plain(one)...)
		}
		if len(all) == 0 && len(operations) > 0 {
			all = []any{nothing()}
		}
		if len(all) > 0 { // else it is refused for what it was
			v[key] = all
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return body
	}
	return b
}

func tidyOperation(o map[string]any) {
	path, _ := o[field(o, "path")].(string)
	ofManager, ofActive := strings.EqualFold(path, enterprise+":manager"), strings.EqualFold(strings.TrimPrefix(strings.ToLower(path), core+":"), "active")
	for key, v := range o {
		if !strings.EqualFold(key, "value") {
			continue
		}
		attributes, ok := v.(map[string]any)
		switch {
		case ofManager:
			o[key] = manager(v)
		case ofActive:
			o[key] = bare(v)
		case ok:
			tidy(attributes)
		}
	}
}

// plain is what an operation says that we can read.
func plain(o map[string]any) []any {
	path, _ := o[field(o, "path")].(string)
	op, _ := o[field(o, "op")].(string)
	value := field(o, "value")
	if foreign(path) {
		return nil
	}
	if strings.EqualFold(op, "remove") {
		return []any{o}
	}
	if v, has := o[value]; has && v == nil && path != "" {
		return []any{removal(path)}
	}
	attributes, _ := o[value].(map[string]any)
	if len(attributes) == 0 || path != "" {
		return []any{o}
	}
	var removals []any
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		of, within := attributes[name].(map[string]any)
		switch {
		case attributes[name] == nil:
			removals = append(removals, removal(name))
			delete(attributes, name)
		case foreign(name):
			delete(attributes, name)
		case within && strings.Contains(name, ":"):
			for _, sub := range slices.Sorted(maps.Keys(of)) {
				if of[sub] == nil {
					removals = append(removals, removal(name+":"+sub))
					delete(of, sub)
				}
			}
		}
	}
	if len(attributes) == 0 {
		return removals
	}
	return append([]any{o}, removals...)
}

// nothing is an operation that changes nothing. It stands for those that say
// nothing we keep: a directory that is told no of one tries it for hours, and may
// put the user, or all of them, off.
func nothing() any { return map[string]any{"op": "replace", "value": map[string]any{}} }

func removal(path string) any { return map[string]any{"op": "remove", "path": path} }

// foreign reports whether a name is written out with a schema that is not ours.
func foreign(name string) bool {
	name = strings.ToLower(name)
	ours := func(schema string) bool { return name == schema || strings.HasPrefix(name, schema+":") }
	return strings.HasPrefix(name, "urn:") && !slices.ContainsFunc([]string{core, enterprise, strings.ToLower(groupSchema)}, ours)
}

// field is an object's own spelling of a name.
func field(o map[string]any, name string) string {
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if strings.EqualFold(key, name) {
			return key
		}
	}
	return name
}

// bare is a value that some directories wrap: [{"$ref": null, "value": "False"}].
func bare(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if inner, has := v[field(v, "value")]; has {
			return bare(inner)
		}
	case []any:
		if len(v) == 1 {
			return bare(v[0])
		}
	}
	return v
}

// tidy puts right the manager, and whether she is active, among a user's attributes.
func tidy(attributes map[string]any) {
	for key, v := range attributes {
		switch {
		case strings.EqualFold(key, "active"), strings.EqualFold(key, core+":active"):
			attributes[key] = bare(v)
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
