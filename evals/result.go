package evals

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"
)

// Kind is what an eval measures.
type Kind string

// Kinds of evals.
const (
	KindRetrieval Kind = "retrieval"
	KindChunking  Kind = "chunking"
	KindFreshness Kind = "freshness"
	KindCompare   Kind = "compare"
	KindSweep     Kind = "sweep"
)

// ResultFormat is the version of [Result] as it is kept. A file of a later one is refused.
const ResultFormat = 1

// Result is one run of an eval, as it is kept.
type Result struct {
	Format int `json:"format"`
	// ID names the run. [Results.Save] gives one to a result without.
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Set is what was asked. Figures of runs over sets with different digests can't be compared.
	Set     Set       `json:"set"`
	Started time.Time `json:"started"`
	// Took is in nanoseconds.
	Took   time.Duration `json:"took"`
	Target Target        `json:"target"`
	// Settings are the eval's own, such as k or the mode.
	Settings map[string]any `json:"settings,omitempty"`
	// Figures are what was measured, in the order in which they are shown.
	Figures []Figure `json:"figures"`
	// Detail is the kind's own: what a comparison of two runs, question by question, needs.
	Detail json.RawMessage `json:"detail,omitempty"`
}

// Set is the questions, or the stream of changes, of an eval.
type Set struct {
	// Name is for people, such as "scifact/test".
	Name string `json:"name"`
	// Digest is a hash of the questions and their right answers; "" if that makes no sense.
	Digest string `json:"digest,omitempty"`
}

// Target is what was measured. What does not apply is empty.
type Target struct {
	// Server is the base URL of a running liverag; empty: the run was in process.
	Server string `json:"server,omitempty"`
	// Generation is its name, never an alias.
	Generation string `json:"generation,omitempty"`
	// Recipe names the chunker and the model in words, such as "recursive 200, local/minilm".
	Recipe string `json:"recipe,omitempty"`
	// Program is the version of the program that measured.
	Program string `json:"program,omitempty"`
}

// Direction is whether more of a figure is better.
type Direction string

// Directions. A figure without one is for information: no baseline fails by it.
const (
	Higher Direction = "higher"
	Lower  Direction = "lower"
)

// Unit is what a figure counts.
type Unit string

// Units. The zero Unit is a plain number.
const (
	// Fraction is a share or a score from 0 to 1.
	Fraction Unit = "fraction"
	// Seconds are shown as a duration, and written as a Go duration in the JSON of the command line.
	Seconds Unit = "s"
	// Count is a whole number.
	Count Unit = "count"
)

// Figure is one number that an eval measured.
type Figure struct {
	// Name is its key in JSON: "ndcg@10". A dot makes an object: "deletes.p99" is {"deletes":{"p99":…}}.
	Name   string    `json:"name"`
	Value  float64   `json:"value"`
	Unit   Unit      `json:"unit,omitempty"`
	Better Direction `json:"better,omitempty"`
	// Chief figures are those that a list of runs shows.
	Chief bool `json:"chief,omitempty"`
}

// String is the value for people.
func (f Figure) String() string { return f.Unit.Format(f.Value) }

// Format writes a value of the unit for people.
func (u Unit) Format(v float64) string {
	switch u {
	case Seconds:
		return duration(v).String()
	case Count:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case Fraction:
		return strconv.FormatFloat(v, 'f', 4, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// duration is seconds as a duration with about three digits.
func duration(seconds float64) time.Duration {
	d := time.Duration(math.Round(seconds * 1e9))
	unit := time.Nanosecond
	for abs := d.Abs(); abs >= 1000*unit && unit < time.Second; {
		unit *= 10
	}
	return d.Round(unit)
}

// Figure returns the figure of that name.
func (r *Result) Figure(name string) (Figure, bool) {
	for _, f := range r.Figures {
		if f.Name == name {
			return f, true
		}
	}
	return Figure{}, false
}

// check verifies that a result can be kept.
func (r *Result) check() error {
	if r.Kind == "" {
		return fmt.Errorf("a result needs a kind")
	}
	seen := make(map[string]bool, len(r.Figures))
	for _, f := range r.Figures {
		switch {
		case f.Name == "":
			return fmt.Errorf("a figure without a name")
		case seen[f.Name]:
			return fmt.Errorf("figure %s is there twice", f.Name)
		case math.IsNaN(f.Value) || math.IsInf(f.Value, 0):
			return fmt.Errorf("figure %s is %v, which is no number", f.Name, f.Value)
		}
		seen[f.Name] = true
	}
	return nil
}

// Summary is the result as the command line prints it in JSON: each figure under its own name (a duration as a Go
// duration), "better" with the directions, and id, kind, set, target and settings. more, which may be nil, is added on
// top; its objects are merged with the figures' own.
func (r *Result) Summary(more map[string]any) map[string]any {
	out := make(map[string]any)
	better := make(map[string]Direction)
	for _, f := range r.Figures {
		into := out
		path := strings.Split(f.Name, ".")
		for _, name := range path[:len(path)-1] {
			inner, ok := into[name].(map[string]any)
			if !ok {
				inner = make(map[string]any)
				into[name] = inner
			}
			into = inner
		}
		var value any = f.Value
		if f.Unit == Seconds {
			value = time.Duration(math.Round(f.Value * 1e9)).String()
		}
		into[path[len(path)-1]] = value
		if f.Better != "" {
			better[f.Name] = f.Better
		}
	}
	out["better"] = better
	out["id"], out["kind"], out["set"], out["target"], out["settings"] = r.ID, r.Kind, r.Set, r.Target, r.Settings
	out["started"], out["took"] = r.Started.UTC(), r.Took.String()
	merge(out, more)
	return out
}

// merge adds what is in more to into; objects in both are merged.
func merge(into, more map[string]any) {
	for name, value := range more {
		if inner, ok := value.(map[string]any); ok {
			if there, ok := into[name].(map[string]any); ok {
				there = maps.Clone(there)
				merge(there, inner)
				into[name] = there
				continue
			}
		}
		into[name] = value
	}
}
