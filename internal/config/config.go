// Package config fills one struct of settings from a YAML file, the environment and flags, and remembers where each value came from.
//
// The struct is the whole description. Its values before [Load] are the defaults; its tags are the rest:
//
//	name:"ca_file"      the setting's name in its section; a nested struct with a name is a section
//	doc:"…"             one or two sentences for help and the manual
//	flag:"kafka"        the flag, if it is not the full dotted name
//	oneof:"a b c"       the values allowed, apart from the default; letter case is forgiven
//	min:"1" max:"200"   bounds, in the setting's own spelling
//	secret:"true"       never a flag, and masked where values are shown
//	file:"no"           never in the file
//
// A setting kafka.tls.ca_file is spelled kafka: {tls: {ca_file: …}} (or with dots) in the file, PREFIX_KAFKA_TLS_CA_FILE in the
// environment and --kafka.tls.ca_file as a flag. Later ones win: default, file, environment, flag.
package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Setting describes one leaf of the struct.
type Setting struct {
	// Name is the full dotted name.
	Name string
	// Doc is what it means.
	Doc string
	// Flag is the flag's name without dashes. Empty: it can't be a flag.
	Flag string
	// Env is the environment variable.
	Env string
	// OneOf holds the values allowed, if there are only a few.
	OneOf []string
	// Min and Max are the bounds as written in the tags; empty: none.
	Min, Max string
	// Secret values are masked by Show.
	Secret bool
	// InFile tells whether the file may hold it.
	InFile bool
	// Default is the default as a person would write it.
	Default string

	index []int
	kind  kind
}

// Type is a word for the setting's type: text, number, true or false, duration, size, list, mapping.
func (s *Setting) Type() string { return s.kind.String() }

// IsBool tells whether the setting is true or false, so that its flag needs no value.
func (s *Setting) IsBool() bool { return s.kind == kindBool }

// Describe lists the settings of a struct in the order of its fields. It panics on a struct that is not fit to be one, which is a mistake of the programmer.
func Describe(defaults any, prefix string) []Setting {
	v := reflect.ValueOf(defaults)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	var out []Setting
	describe(v, prefix, "", nil, &out)
	return out
}

func describe(v reflect.Value, prefix, section string, index []int, out *[]Setting) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("name")
		if name == "" {
			panic(fmt.Sprintf("config: field %s.%s has no name tag", t, f.Name))
		}
		if section != "" {
			name = section + "." + name
		}
		at := append(slices.Clone(index), i)
		if f.Type.Kind() == reflect.Struct {
			describe(v.Field(i), prefix, name, at, out)
			continue
		}
		k := kindOf(f.Type)
		if k == kindNone {
			panic(fmt.Sprintf("config: field %s.%s has type %s, which no setting has", t, f.Name, f.Type))
		}
		s := Setting{
			Name:    name,
			Doc:     f.Tag.Get("doc"),
			Env:     prefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_")),
			OneOf:   strings.Fields(f.Tag.Get("oneof")),
			Min:     f.Tag.Get("min"),
			Max:     f.Tag.Get("max"),
			Secret:  f.Tag.Get("secret") == "true",
			InFile:  f.Tag.Get("file") != "no",
			Default: format(v.Field(i)),
			index:   at,
			kind:    k,
		}
		if !s.Secret {
			if s.Flag = f.Tag.Get("flag"); s.Flag == "" {
				s.Flag = name
			}
		}
		*out = append(*out, s)
	}
}

// Origin says where a value came from.
type Origin struct {
	// Kind is default, file, env or flag.
	Kind string
	// Where is liverag.yaml:12, a variable's name, or a flag with its dashes. Empty for a default.
	Where string
}

// IsDefault tells whether nobody set the value.
func (o Origin) IsDefault() bool { return o.Kind == "" || o.Kind == "default" }

func (o Origin) String() string {
	switch o.Kind {
	case "", "default":
		return "default"
	case "file":
		return o.Where
	}
	return o.Kind + " " + o.Where
}

// Error is a value that can't be: it begins with the setting's name.
type Error struct {
	Setting string
	Detail  string
	Origin  Origin
}

func (e *Error) Error() string {
	if e.Origin.IsDefault() {
		return e.Setting + ": " + e.Detail
	}
	return e.Setting + ": " + e.Detail + " (" + e.Origin.String() + ")"
}

// FlagValue is one flag as given, without dashes.
type FlagValue struct {
	Name, Value string
}

// Sources is where values come from, besides the struct's own defaults.
type Sources struct {
	// File is the name shown for Content, which is YAML. No Content: no file.
	File    string
	Content []byte
	// Environ has the form of os.Environ. Only variables that begin with Prefix are looked at.
	Environ []string
	// Prefix is what the environment's variables begin with, such as "LIVERAG_".
	Prefix string
	// Ignore names variables with the prefix that are no settings.
	Ignore []string
	// Flags in the order given. Several for a list or a mapping add up; else the last one wins.
	Flags []FlagValue
}

// Settings is a filled struct's description.
type Settings struct {
	list    []Setting
	byName  map[string]*Setting
	origins map[string]Origin
	value   reflect.Value
}

// Load fills dst, a pointer to a struct that holds the defaults. It checks each value by itself (type, oneof, bounds) and returns all errors it
// found, joined; what belongs together across settings is the caller's to check. Settings is never nil.
func Load(dst any, src Sources) (*Settings, error) {
	v := reflect.ValueOf(dst).Elem()
	s := &Settings{list: Describe(dst, src.Prefix), byName: map[string]*Setting{}, origins: map[string]Origin{}, value: v}
	for i := range s.list {
		s.byName[s.list[i].Name] = &s.list[i]
	}
	var errs []error
	errs = append(errs, s.loadFile(src)...)
	errs = append(errs, s.loadEnviron(src)...)
	errs = append(errs, s.loadFlags(src)...)
	return s, errors.Join(errs...)
}

// All lists the settings in the order of the struct.
func (s *Settings) All() []Setting { return s.list }

// Origin tells where the named setting's value came from.
func (s *Settings) Origin(name string) Origin {
	if o, ok := s.origins[name]; ok {
		return o
	}
	return Origin{Kind: "default"}
}

// Show spells the named setting's value for a person; a secret that is set is masked.
func (s *Settings) Show(name string) string {
	d := s.byName[name]
	text := format(s.value.FieldByIndex(d.index))
	if d.Secret && text != "" {
		return Masked
	}
	return text
}

// Value returns the named setting's value for JSON; a secret that is set is masked.
func (s *Settings) Value(name string) any {
	d := s.byName[name]
	if d.Secret || d.kind == kindDuration || d.kind == kindBytes {
		return s.Show(name)
	}
	return s.value.FieldByIndex(d.index).Interface()
}

// Masked stands for a secret that is set.
const Masked = "********"

// Errorf makes an Error about the named setting with its origin.
func (s *Settings) Errorf(name, detail string, args ...any) error {
	return &Error{Setting: name, Detail: fmt.Sprintf(detail, args...), Origin: s.Origin(name)}
}

// set parses text into a setting. more adds to a list or mapping that the same source has already begun.
func (s *Settings) set(d *Setting, text string, origin Origin, more bool) error {
	v, err := parse(d, text)
	if err != nil {
		return &Error{d.Name, err.Error(), origin}
	}
	s.assign(d, v, origin, more)
	return nil
}

func (s *Settings) assign(d *Setting, v reflect.Value, origin Origin, more bool) {
	s.origins[d.Name] = origin
	field := s.value.FieldByIndex(d.index)
	switch {
	case more && d.kind == kindList:
		field.Set(reflect.AppendSlice(field, v))
	case more && d.kind == kindMap:
		for _, key := range v.MapKeys() {
			field.SetMapIndex(key, v.MapIndex(key))
		}
	default:
		field.Set(v)
	}
}

func (s *Settings) loadEnviron(src Sources) []error {
	byEnv := map[string]*Setting{}
	names := make([]string, 0, len(s.list))
	for i := range s.list {
		byEnv[s.list[i].Env] = &s.list[i]
		names = append(names, strings.TrimPrefix(s.list[i].Env, src.Prefix))
	}
	var errs []error
	for _, pair := range src.Environ {
		name, value, _ := strings.Cut(pair, "=")
		if src.Prefix == "" || !strings.HasPrefix(name, src.Prefix) || slices.Contains(src.Ignore, name) {
			continue
		}
		d := byEnv[name]
		if d == nil {
			near := ""
			if n := Nearest(strings.TrimPrefix(name, src.Prefix), names); n != "" {
				near = "; did you mean " + src.Prefix + n + "?"
			}
			errs = append(errs, &Error{name, "is no setting" + near, Origin{}})
			continue
		}
		if err := s.set(d, value, Origin{"env", name}, false); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (s *Settings) loadFlags(src Sources) []error {
	var errs []error
	seen := map[string]bool{}
	for _, f := range src.Flags {
		i := slices.IndexFunc(s.list, func(d Setting) bool { return d.Flag == f.Name && d.Flag != "" })
		if i < 0 {
			errs = append(errs, &Error{"--" + f.Name, "is no flag", Origin{}})
			continue
		}
		d := &s.list[i]
		if err := s.set(d, f.Value, Origin{"flag", "--" + f.Name}, seen[d.Name]); err != nil {
			errs = append(errs, err)
		}
		seen[d.Name] = true
	}
	return errs
}
