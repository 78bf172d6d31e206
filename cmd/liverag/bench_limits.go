package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/internal/mockprovider"
	"github.com/liverag/liverag/internal/spell"
)

// limitsModel is the model of the rehearsals. Its tokenizer is known, so that the client's counts and the provider's agree, as they do with the real one.
const limitsModel = "text-embedding-3-small"

// limitScenario is one way to meet a provider's limit.
type limitScenario struct {
	name, does string
	variants   []string
	run        func(b *limitsBench, ctx context.Context, variant string) error
}

// limitScenarios are all, in the order in which they run.
func limitScenarios() []limitScenario {
	return []limitScenario{
		{"thousand", "1,000 documents at RPM 3,000 and TPM 1,000,000, 50 ms a request; the variants are how the client is told of the limits (by its settings, by headers, by both, by refusals with their reasons and times, by nothing but a bare 429), and how much the provider grants at once",
			[]string{"settings-1s", "headers-1s", "both-1s", "refusals-1s", "nothing-1s", "settings-60s", "headers-60s", "both-60s", "refusals-60s", "nothing-60s"}, (*limitsBench).thousandOf},
		{"trickle", "47 chunks of 400 tokens at 3 requests and 10,000 tokens a minute, and a second model beside it that has no limit",
			[]string{bySettings, byHeaders, byBoth}, (*limitsBench).trickleOf},
		{"cut", "the thousand documents while the limits are cut to a tenth in mid-run and restored (tenth: told by headers; tenth-refusals: by 429 alone), while the provider answers 503 (outage), and with 500 in one answer of twenty (faults)",
			[]string{"tenth", "tenth-refusals", "outage", "faults"}, (*limitsBench).cutOf},
		{"flood", "10,000 changes a second of a sentence each, for 10 s, against 50 ms a request: bound by the requests in flight, or by RPM",
			[]string{"in-flight", "rpm"}, (*limitsBench).floodOf},
		{"replay", "an edit a second, first with nothing else to do, then while a replay with another recipe takes all that the model gives; with 30 edits p99 is the slowest of them",
			[]string{"endpoint", "minilm"}, (*limitsBench).replayOf},
		{"local", "a model in the binary: the floor is what it takes alone for the same chunks, in a loop on all processors, before or afterwards, whichever was quicker",
			[]string{"minilm", "static"}, (*limitsBench).localOf},
	}
}

func benchLimitsVerb() verb {
	var list []string
	for _, s := range limitScenarios() {
		list = append(list, fmt.Sprintf("%s: %s (%s).", s.name, s.does, strings.Join(s.variants, ", ")))
	}
	return verb{
		name: "bench limits", group: groupCare,
		summary: "Measure indexing at an embedding provider's limit, against the arithmetic floor",
		about: `Starts this very program as a server of its own, on an empty temporary directory, and a mock embedding provider in its own process; sends documents, and measures until all of them are searchable. Nothing that runs already is touched, and nothing leaves the machine.

` + strings.Join(list, "\n\n") + `

The floor is the earliest that the limits allow: with an allowance of R a minute, of which B may be used at once, N of them can't be had before (N - B) / R minutes, for requests and for tokens, whichever is later; and one latency comes on top. B is the burst (R for as many seconds as the variant says), or the largest request, if that is more: a provider admits it when its allowance is full, and has the debt worked off. Where limits change, and in outages, the same is counted from change to change. Where the requests in flight are the limit, it is requests / in flight × latency. The clock starts before the first document is sent, with the provider's allowance full.

Tokens needed are counted from what is stored: each different input once, by the provider's tokenizer. Tokens paid are what the provider charged for; requests that it fails for no limit are charged too. Afterwards each document is read back and compared, and liverag verify compares all of them with the log: what differs is lost.

Where the time went: "to the first request" is from sending the documents until the provider got a request; "unused" is how long the provider's allowance stood full, or a request less than full, while there was work; "after the last answer" is until everything was searchable. "processors" is their time in all: where that, shared among the machine's processors, is near the floor, the machine is the limit and not the provider.

The plain client beside it is what such pipelines usually have, on the same chunks and a provider of its own with the same limits: go-openai, 8 workers, a document a request. A 429, a 5xx or a broken connection is tried again after a random time of up to 1, 2, 4, 8, 16 s (OpenAI's own advice: exponential, with jitter, 6 attempts); then the document is given up, and counts as lost. go-openai does not show it Retry-After. It only embeds, and stores nothing. It is stopped after twice the floor and a minute; what is not done by then is unfinished.`,
		examples: []example{
			{"everything; about half an hour, and the machine should have nothing else to do", "liverag bench limits"},
			{"one scenario, with each request in a file, to see where time goes", "liverag bench limits --scenario thousand --variant settings-1s --requests requests.ndjson"},
			{"does it all work? a few seconds of each", "liverag bench limits --quick"},
		},
		setup: func(fs *flag.FlagSet) action {
			b := &limitsBench{}
			fs.Var((*stringList)(&b.scenarios), "scenario", "`NAME` of a scenario, may be given several times (default: all)")
			fs.Var((*stringList)(&b.variants), "variant", "`NAME` of a variant, may be given several times (default: all of each scenario)")
			fs.IntVar(&b.documents, "documents", 1000, "how many documents")
			fs.DurationVar(&b.floor, "floor", 50*time.Second, "how long the floor is to be where it can be chosen; documents are as long as that takes")
			fs.DurationVar(&b.during, "during", 30*time.Second, "how long each phase of edits lasts")
			fs.DurationVar(&b.outage, "outage", 30*time.Second, "how long an outage, or a cut of the limits, lasts")
			fs.BoolVar(&b.plain, "plain", true, "run the plain client too")
			fs.BoolVar(&b.quick, "quick", false, "a small size of everything, to see that it works: the figures say little")
			fs.StringVar(&b.requests, "requests", "", "write every request that the provider got to `FILE`, a JSON object a line")
			fs.BoolVar(&b.keep, "keep", false, "keep the data directories and say where they are")
			return b.run
		},
	}
}

// limitsBench is a run of `bench limits`.
type limitsBench struct {
	scenarios, variants []string
	documents           int
	floor, during       time.Duration
	outage, flooded     time.Duration
	plain, quick, keep  bool
	requests            string

	call     *call
	scenario string
	results  []*limitsResult
	timeline *os.File // nil: nobody asked for it
}

// limitsResult is how one client did.
type limitsResult struct {
	Scenario string `json:"scenario"`
	Variant  string `json:"variant"`
	Client   string `json:"client"`

	Documents int `json:"documents"`
	Chunks    int `json:"chunks"`
	// TokensNeeded are of each different input once, TokensPaid what the provider charged, and TokensFailed what of it was for requests that it failed.
	TokensNeeded int64 `json:"tokens_needed"`
	TokensPaid   int64 `json:"tokens_paid"`
	TokensFailed int64 `json:"tokens_failed"`
	// Throttled are answers of 429, Failed other refusals, faults and answers that nobody waited for.
	Throttled int64 `json:"throttled"`
	Failed    int64 `json:"failed"`
	// Lost documents are not as they were sent; Unfinished ones were not done when the client was stopped.
	Lost       int `json:"lost"`
	Unfinished int `json:"unfinished"`

	Seconds float64 `json:"seconds"`
	Floor   float64 `json:"floor"`
	Ratio   float64 `json:"ratio"`

	Requests         int64   `json:"requests"`
	InputsPerRequest float64 `json:"inputs_per_request"`

	// More are figures that only this scenario has.
	More []measure `json:"more,omitempty"`

	requests []providerRequest
}

// measure is a figure with its name, for people and programs.
type measure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

func (t *limitsResult) add(name string, value float64, unit string) {
	t.More = append(t.More, measure{name, value, unit})
}

const (
	ours   = "liverag"
	theirs = "plain client"
)

func (b *limitsBench) run(ctx context.Context, c *call) (err error) {
	if len(c.Args) > 0 {
		return &usageError{detail: "bench limits takes no arguments; --scenario names one"}
	}
	if b.documents < 1 || b.floor <= 0 || b.during <= 0 || b.outage <= 0 {
		return &usageError{detail: "--documents, --floor, --during and --outage must be above 0"}
	}
	all := limitScenarios()
	var names, variants []string
	for _, s := range all {
		names, variants = append(names, s.name), append(variants, s.variants...)
	}
	for _, name := range b.scenarios {
		if !slices.Contains(names, name) {
			return &usageError{detail: fmt.Sprintf("there is no scenario %q; there are %s", name, strings.Join(names, ", "))}
		}
	}
	for _, name := range b.variants {
		if !slices.Contains(variants, name) {
			return &usageError{detail: fmt.Sprintf("there is no variant %q; `liverag help bench limits` lists those of each scenario", name)}
		}
	}
	b.flooded = 10 * time.Second
	if b.quick {
		b.documents, b.floor, b.during = min(b.documents, 60), min(b.floor, 2*time.Second), min(b.during, 2*time.Second)
		b.outage, b.flooded = min(b.outage, time.Second), 500*time.Millisecond
	}
	if b.requests != "" {
		if b.timeline, err = os.Create(b.requests); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.timeline.Close()) }()
	}
	b.call = c
	for _, s := range all {
		if len(b.scenarios) > 0 && !slices.Contains(b.scenarios, s.name) {
			continue
		}
		b.scenario = s.name
		first := len(b.results)
		for _, variant := range s.variants {
			if len(b.variants) > 0 && !slices.Contains(b.variants, variant) {
				continue
			}
			c.Err.Status("%s, %s", s.name, variant)
			if err := s.run(b, ctx, variant); err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, variant, err)
			}
		}
		c.Err.clearStatus()
		if !c.JSON && len(b.results) > first {
			b.print(s, b.results[first:])
		}
	}
	if len(b.results) == 0 {
		return &usageError{detail: "no scenario has such a variant", hint: "`liverag help bench limits` lists those of each scenario"}
	}
	if c.JSON {
		return c.Out.JSON(map[string]any{"cores": runtime.GOMAXPROCS(0), "quick": b.quick, "results": b.results})
	}
	return nil
}

// print shows a scenario's results as a table, and what only it has below.
func (b *limitsBench) print(s limitScenario, results []*limitsResult) {
	out := b.call.Out
	out.Printf("%s\n", out.bold(s.name))
	for _, line := range wrap(s.does, out.Width) {
		out.Printf("%s\n", line)
	}
	rows := make([][]string, len(results))
	for i, t := range results {
		lost := spell.Thousands(t.Lost)
		if t.Unfinished > 0 {
			lost += fmt.Sprintf(" + %d unfinished", t.Unfinished)
		}
		floor, ratio, paid, throttled, requests, inputs := "-", "-", "-", "-", "-", "-"
		if t.Floor > 0 {
			floor, ratio = fmt.Sprintf("%.2f s", t.Floor), fmt.Sprintf("%.3f", t.Ratio)
		}
		if t.Requests > 0 {
			paid, throttled, requests, inputs = spell.Thousands(t.TokensPaid), spell.Thousands(t.Throttled), spell.Thousands(t.Requests), fmt.Sprintf("%.1f", t.InputsPerRequest)
		}
		rows[i] = []string{t.Variant, t.Client, spell.Thousands(t.Documents), spell.Thousands(t.Chunks), spell.Thousands(t.TokensNeeded), paid, throttled, lost,
			fmt.Sprintf("%.2f s", t.Seconds), floor, ratio, requests, inputs}
	}
	out.table([]string{"variant", "client", "documents", "chunks", "tokens needed", "paid", "429s", "lost", "time", "floor", "ratio", "requests", "inputs each"}, rows)
	for _, t := range results {
		var parts []string
		for _, m := range t.More {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %.4g %s", m.Name, m.Value, m.Unit)))
		}
		if len(parts) > 0 {
			for _, line := range wrap(fmt.Sprintf("%s, %s: %s", t.Variant, t.Client, strings.Join(parts, "; ")), out.Width) {
				out.Printf("%s\n", line)
			}
		}
	}
	out.Printf("\n")
}

// allowance is what a provider grants: so much a minute, of which burst's worth at once.
type allowance struct {
	rpm, tpm int
	burst    time.Duration
	latency  time.Duration
}

// Ways to tell a client of limits.
const (
	bySettings = "settings" // only the settings have them
	byHeaders  = "headers"  // OpenAI's headers in each answer, the good ones too
	byBoth     = "both"     // settings and headers
	byRefusals = "refusals" // only a 429 says which limit there is, and when to come back
	byNothing  = "nothing"  // a 429 says nothing but that
)

// provider is a mock that tells of the allowance in one of the ways.
func (a allowance) provider(tells string) mockprovider.Config {
	cfg := mockprovider.Config{RPM: a.rpm, TPM: a.tpm, Burst: a.burst, Latency: a.latency, Headers: "none"}
	switch tells {
	case byHeaders, byBoth:
		cfg.Headers = "openai"
	case byNothing:
		cfg.Quiet, cfg.RetryAfter = true, "none"
	}
	return cfg
}

// settings are those of section openai that tell of it.
func (a allowance) settings(tells string) map[string]any {
	out := map[string]any{}
	if tells == bySettings || tells == byBoth {
		out["rpm"], out["tpm"] = a.rpm, a.tpm
	}
	return out
}

// refilled waits until nothing is used of it, after a model was opened with one request of a word.
func (a allowance) refilled(ctx context.Context) error {
	wait := 100 * time.Millisecond
	if a.rpm > 0 {
		wait += time.Minute / time.Duration(a.rpm)
	}
	if a.tpm > 0 {
		wait += 10 * time.Minute / time.Duration(a.tpm)
	}
	return pause(ctx, wait)
}

// note keeps the requests that a client made, if somebody asked for them.
func (b *limitsBench) note(variant, client string, asked []providerRequest) error {
	if b.timeline == nil {
		return nil
	}
	enc := json.NewEncoder(b.timeline)
	for _, a := range asked {
		line := struct {
			Scenario string  `json:"scenario"`
			Variant  string  `json:"variant"`
			Client   string  `json:"client"`
			At       float64 `json:"at"`
			Took     float64 `json:"took"`
			Status   int     `json:"status"`
			Inputs   int     `json:"inputs"`
			Tokens   int64   `json:"tokens"`
		}{b.scenario, variant, client, a.at.Seconds(), a.took.Seconds(), a.status, a.inputs, a.tokens}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return nil
}
