package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (s *Settings) loadFile(src Sources) []error {
	if len(src.Content) == 0 {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(src.Content))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // comments only
	} else if err != nil {
		return []error{fmt.Errorf("%s is not YAML: %s", src.File, strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return []error{fmt.Errorf("%s holds several YAML documents: keep the first only", src.File)}
	}
	r := fileReader{Settings: s, file: src.File, lines: map[string]int{}}
	r.section("", doc.Content[0])
	return r.errs
}

type fileReader struct {
	*Settings
	file  string
	lines map[string]int // of each setting met so far
	errs  []error
}

func (r *fileReader) fail(name string, node *yaml.Node, detail string, args ...any) {
	r.errs = append(r.errs, &Error{name, fmt.Sprintf(detail, args...), r.at(node)})
}

func (r *fileReader) at(node *yaml.Node) Origin {
	return Origin{"file", fmt.Sprintf("%s:%d", r.file, node.Line)}
}

func (r *fileReader) section(section string, node *yaml.Node) {
	node = resolve(node)
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return // "kafka:" with everything below it commented out
	}
	if node.Kind != yaml.MappingNode {
		name := section
		if name == "" {
			name = r.file
		}
		r.fail(name, node, "must be a mapping with the keys %s", strings.Join(r.children(section), ", "))
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := key.Value
		if section != "" {
			name = section + "." + name
		}
		d := r.byName[name]
		switch {
		case d != nil && d.InFile:
			if line, twice := r.lines[name]; twice {
				r.fail(name, key, "is set twice, first in line %d", line)
				continue
			}
			r.lines[name] = key.Line
			r.leaf(d, key, resolve(value))
		case d != nil:
			r.fail(name, key, "can't be set in the file: use --%s or %s", d.Flag, d.Env)
		case len(r.children(name)) > 0:
			r.section(name, value)
		default:
			near := Nearest(name, r.fileNames())
			if near != "" {
				near = "; did you mean " + near + "?"
			}
			r.fail(name, key, "is no setting%s", near)
		}
	}
}

func (r *fileReader) leaf(d *Setting, key, node *yaml.Node) {
	origin := r.at(key)
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return // "tokens:" leaves the default
		}
		if err := r.set(d, node.Value, origin, false); err != nil {
			r.errs = append(r.errs, err)
		}
	case yaml.SequenceNode:
		if d.kind != kindList {
			r.fail(d.Name, key, "must be a %s, not a list", d.kind)
			return
		}
		list := []string{}
		for _, element := range node.Content {
			if element = resolve(element); element.Kind != yaml.ScalarNode {
				r.fail(d.Name, element, "must be a list of plain values")
				return
			}
			list = append(list, element.Value)
		}
		r.assign(d, reflect.ValueOf(list), origin, false)
	case yaml.MappingNode:
		if d.kind != kindMap {
			r.fail(d.Name, key, "must be a %s, not a mapping", d.kind)
			return
		}
		m := map[string]string{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			value := resolve(node.Content[i+1])
			if value.Kind != yaml.ScalarNode {
				r.fail(d.Name, value, "must be a mapping from names to plain values")
				return
			}
			m[node.Content[i].Value] = value.Value
		}
		r.assign(d, reflect.ValueOf(m), origin, false)
	}
}

// children lists the keys directly below a section.
func (r *fileReader) children(section string) []string {
	var out []string
	for i := range r.list {
		rest := r.list[i].Name
		if section != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(rest, section+"."); !ok {
				continue
			}
		}
		key, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}

func (r *fileReader) fileNames() []string {
	var out []string
	for i := range r.list {
		if r.list[i].InFile {
			out = append(out, r.list[i].Name)
		}
	}
	return out
}

func resolve(node *yaml.Node) *yaml.Node {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}
