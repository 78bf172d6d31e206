package mockprovider

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Event changes a provider at a time.
type Event struct {
	// At is when, counted from New.
	At time.Duration
	// Outage begins one: a kind of Outages, which every request meets, uncharged, or "down", which is 503. "up" ends it. Empty: it stays as it is.
	Outage string
	// RPM, TPM, MaxInFlight and Latency are what Config has by those names, from then on. nil: it stays as it is.
	RPM, TPM, MaxInFlight *int
	Latency               *time.Duration
}

// Up and Down are what an Event's Outage may be beside the kinds of Outages: the end of an outage, and the plainest one.
const (
	Up   = "up"
	Down = "down"
)

// ParseSchedule reads events as they are written in a flag: 30s:down; 10m30s:up; 20s:rpm=300,tpm=100000.
func ParseSchedule(text string) ([]Event, error) {
	var out []Event
	for entry := range strings.SplitSeq(text, ";") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		when, changes, found := strings.Cut(entry, ":")
		at, err := time.ParseDuration(strings.TrimSpace(when))
		if !found || err != nil {
			return nil, fmt.Errorf("%q is no change at a time; write it like 30s:down or 20s:rpm=300,tpm=100000", entry)
		}
		event := Event{At: at}
		for change := range strings.SplitSeq(changes, ",") {
			if err := event.parse(strings.TrimSpace(change)); err != nil {
				return nil, err
			}
		}
		out = append(out, event)
	}
	return out, checkSchedule(out)
}

// parse adds one change.
func (e *Event) parse(change string) error {
	name, value, setting := strings.Cut(change, "=")
	if !setting {
		if e.Outage != "" {
			return fmt.Errorf("%s and %s can't both be at %v", e.Outage, name, e.At)
		}
		if name == "" {
			name = "nothing"
		}
		e.Outage = name
		return nil
	}
	if name == "latency" {
		d, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("%s is no latency; write it like latency=2s", change)
		}
		e.Latency = &d
		return nil
	}
	numbers := map[string]**int{"rpm": &e.RPM, "tpm": &e.TPM, "max-in-flight": &e.MaxInFlight}
	into, known := numbers[name]
	n, err := strconv.Atoi(value)
	if !known || err != nil {
		return fmt.Errorf("%s is nothing that can change; write rpm=N, tpm=N, max-in-flight=N or latency=DURATION", change)
	}
	*into = &n
	return nil
}

func checkSchedule(events []Event) error {
	for _, e := range events {
		if e.At < 0 {
			return errors.New("no time of a change can be before the start")
		}
		for _, n := range []*int{e.RPM, e.TPM, e.MaxInFlight} {
			if n != nil && *n < 0 {
				return errors.New("times and limits can't be negative")
			}
		}
		if e.Latency != nil && *e.Latency < 0 {
			return errors.New("times and limits can't be negative")
		}
		if e.Outage != "" && e.Outage != Up && e.Outage != Down && !slices.Contains(Outages(), e.Outage) {
			return fmt.Errorf("%s is no outage; there are %s, %s, and %s ends one", e.Outage, Down, strings.Join(Outages(), ", "), Up)
		}
	}
	return nil
}

// sorted is the events by time. Those at one time stay in their order.
func sorted(events []Event) []Event {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	return events
}

// outageOf is the fault that an outage is; ok where none is.
func outageOf(before, outage string) string {
	switch outage {
	case "":
		return before
	case Up:
		return ok
	case Down:
		return "503"
	}
	return outage
}

// advance applies the events that are due.
func (p *Provider) advance(now time.Time) {
	for len(p.events) > 0 && p.events[0].At <= now.Sub(p.start) {
		e := p.events[0]
		p.events = p.events[1:]
		at := p.start.Add(e.At)
		p.outage = outageOf(p.outage, e.Outage)
		if e.RPM != nil {
			p.requests.allow(*e.RPM, at)
			p.day.allow(*e.RPM, at)
		}
		if e.TPM != nil {
			p.tokens.allow(*e.TPM, at)
		}
		if e.MaxInFlight != nil {
			p.maxInFlight = *e.MaxInFlight
		}
		if e.Latency != nil {
			p.latency = *e.Latency
		}
	}
}
