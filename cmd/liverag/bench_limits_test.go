package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/internal/mockprovider"
)

// benchLimits runs `bench limits` as a process of its own.
func benchLimits(t *testing.T, args ...string) []limitsResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := liverag(t, append([]string{"bench", "limits", "--json", "--quick"}, args...)...)
	var out, errOut lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("liverag bench limits: %v\n%s", err, errOut.String())
	}
	var answer struct {
		Results []limitsResult `json:"results"`
	}
	if err := json.Unmarshal([]byte(out.String()), &answer); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return answer.Results
}

func (t *limitsResult) String() string {
	return fmt.Sprintf("%s, %s, %s: %+v", t.Scenario, t.Variant, t.Client, *t)
}

// TestBenchLimits runs a small size of what is sent through a provider that has limits: nothing may be lost, whatever the provider does, and nothing paid twice.
func TestBenchLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds; without -short it runs")
	}
	for _, tt := range []struct{ scenario, variant string }{
		{"thousand", "settings-1s"}, {"trickle", bySettings}, {"cut", "outage"}, {"cut", "faults"}, {"flood", "in-flight"},
	} {
		t.Run(tt.variant, func(t *testing.T) {
			t.Parallel() // each waits most of its time
			results := benchLimits(t, "--documents", "30", "--floor", "1s", "--outage", "500ms", "--plain=false", "--scenario", tt.scenario, "--variant", tt.variant)
			if len(results) != 1 {
				t.Fatalf("%d results", len(results))
			}
			r := results[0]
			if r.Scenario != tt.scenario || r.Variant != tt.variant || r.Client != ours || r.Documents == 0 || r.Chunks < r.Documents || r.TokensNeeded == 0 || r.Requests == 0 {
				t.Errorf("it measured nothing: %s", &r)
			}
			if r.Lost != 0 || r.Unfinished != 0 {
				t.Errorf("documents are lost: %s", &r)
			}
			if r.TokensPaid-r.TokensFailed != r.TokensNeeded {
				t.Errorf("tokens are paid that were not needed: %s", &r)
			}
			if r.Throttled != 0 {
				t.Errorf("the limits are in the settings, and it was refused all the same: %s", &r)
			}
			if r.Ratio < .99 {
				t.Errorf("it was quicker than can be: %s", &r)
			}
		})
	}
}

// TestBenchLimitsReplay runs a small size of edits beside a replay, and of a model in the binary.
func TestBenchLimitsReplay(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds; without -short it runs")
	}
	results := benchLimits(t, "--documents", "20", "--during", "500ms", "--plain=false", "--scenario", "replay", "--scenario", "local", "--variant", "endpoint", "--variant", "static")
	if len(results) != 2 {
		t.Fatalf("%d results, want one of each scenario", len(results))
	}
	for _, r := range results {
		if r.Lost != 0 || r.Chunks < r.Documents || r.Documents == 0 {
			t.Errorf("%s", &r)
		}
	}
	figures := map[string]float64{}
	for _, m := range append(results[0].More, results[1].More...) {
		figures[m.Name] = m.Value
	}
	for _, name := range []string{"edit to searchable p50, idle", "p99 with the replay", "p99 ratio", "of the allowance used meanwhile", "the model alone", "indexing"} {
		if figures[name] <= 0 {
			t.Errorf("there is no figure %q in %v", name, figures)
		}
	}
}

func TestBenchLimitsUsage(t *testing.T) {
	for _, tt := range []struct{ args, says string }{
		{"extra", "takes no arguments"},
		{"--scenario thousands", `there is no scenario "thousands"; there are thousand, trickle`},
		{"--variant wet", `there is no variant "wet"`},
		{"--scenario trickle --variant static", "no scenario has such a variant"},
		{"--documents 0", "must be above 0"},
	} {
		got := invoke(t, nil, "", append([]string{"bench", "limits"}, strings.Fields(tt.args)...)...)
		if got.code != exitUsage || !strings.Contains(got.err, tt.says) {
			t.Errorf("%s: code %d, %s", tt.args, got.code, got.err)
		}
	}
}

// TestThePlainClient holds the client that we compare with to what the help says of it.
func TestThePlainClient(t *testing.T) {
	inputs := func(n int) [][]string { return slices.Repeat([][]string{{"one", "two"}}, n) }
	for _, tt := range []struct {
		name       string
		script     string
		documents  int
		done, lost int
		requests   int64
	}{
		{"well", "", 20, 20, 0, 20},
		{"a 429 and a 500 are tried again", "429,500,cut", 1, 1, 0, 4},
		{"given up after six", "429*6", 1, 0, 1, 6},
		{"an account without money is a 429 like any other", "quota*6,ok", 2, 1, 1, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script, err := mockprovider.ParseScript(tt.script)
			if err != nil {
				t.Fatal(err)
			}
			r, err := rehearse(mockprovider.Config{Script: script})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			client := newPlainClient(r.base)
			client.first = time.Millisecond
			if tt.documents < 8 {
				client.workers = 1
			}
			done, lost := client.run(t.Context(), inputs(tt.documents))
			if done != tt.done || lost != tt.lost || r.mock.Stats().Requests != tt.requests {
				t.Errorf("%d done, %d lost, %d requests; want %d, %d, %d", done, lost, r.mock.Stats().Requests, tt.done, tt.lost, tt.requests)
			}
		})
	}
	t.Run("an input that is refused is not tried again", func(t *testing.T) {
		r, err := rehearse(mockprovider.Config{Poison: "two"})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if done, lost := newPlainClient(r.base).run(t.Context(), inputs(1)); done != 0 || lost != 1 || r.mock.Stats().Requests != 1 {
			t.Errorf("%d done, %d lost, %d requests", done, lost, r.mock.Stats().Requests)
		}
	})
}

// TestARehearsalRemembers: what was asked before the clock was started does not count, and of what comes after it every request is there, those that fail too.
func TestARehearsalRemembers(t *testing.T) {
	r, err := rehearse(mockprovider.Config{Script: []string{"cut", "503"}, RPM: 60, Burst: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	client := newPlainClient(r.base)
	client.workers, client.attempts = 1, 1
	client.run(t.Context(), [][]string{{"before"}})
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	client.run(t.Context(), [][]string{{"a"}, {"a"}, {"some words", "and more"}, {"a"}})
	requests := r.requests()
	var statuses []int
	for _, q := range requests {
		statuses = append(statuses, q.status)
	}
	if !slices.Equal(statuses, []int{0, 503, 200, 429}) {
		t.Fatalf("%v", statuses)
	}
	if good := requests[2]; good.inputs != 2 || good.tokens != 4 || good.took <= 0 {
		t.Errorf("%+v", good)
	}
}

func TestWhereTimeWent(t *testing.T) {
	at := func(seconds float64, tokens int64) providerRequest {
		return providerRequest{at: time.Duration(seconds * float64(time.Second)), tokens: tokens, inputs: int(tokens), took: 50 * time.Millisecond, status: 200}
	}
	a := allowance{tpm: 60_000, burst: 2 * time.Second} // 1,000 a second, 2,000 at once
	for _, tt := range []struct {
		name     string
		requests []providerRequest
		want     time.Duration
	}{
		{"all of it", []providerRequest{at(0, 2000), at(1, 1000), at(2, 1000)}, 0},
		{"stood full for a second", []providerRequest{at(0, 1000), at(2, 1000), at(3, 1000)}, time.Second},
		{"a refusal takes nothing", []providerRequest{at(0, 2000), at(1, 0), at(2, 2000)}, 0},
	} {
		if got := a.unused(tt.requests); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	slow := []providerRequest{at(10.2, 300), at(10.9, 500), at(11.5, 400), at(12, 300)}
	if got := a.back(slow, 10*time.Second); got != 900*time.Millisecond {
		t.Errorf("nine tenths again after %v, want 0.9 s", got)
	}
	if got := a.back(slow[:2], 10*time.Second); got != -1 {
		t.Errorf("nine tenths again after %v, want never", got)
	}
	var b busiest
	for _, s := range []float64{0, .5, .9, 1.4, 1.45, 1.49, 4} {
		b.add(time.Duration(s * float64(time.Second)))
	}
	if b.most != 5 {
		t.Errorf("%d requests in the busiest second, want 5", b.most)
	}
	steady := make([]providerRequest, 101)
	for i := range steady {
		steady[i] = at(float64(i)/10, 20)
	}
	if got := middle(steady); got < 199 || got > 203 {
		t.Errorf("%v inputs a second in the middle, want 200", got)
	}
}

// TestLostDocumentsAreSeen: a document that is not stored as it was sent must not pass for one that is.
func TestLostDocumentsAreSeen(t *testing.T) {
	corpus, err := newLimitsCorpus(t.Context(), []string{"# Refunds\n\nThey take three days."}, limitsRecipe{"markdown", 200})
	if err != nil {
		t.Fatal(err)
	}
	if len(corpus.chunks[0]) != 1 || corpus.needed == 0 {
		t.Fatalf("%+v", corpus)
	}
	chunk := corpus.chunks[0][0]
	good := map[string]any{"start": chunk.Start, "end": chunk.End, "text": corpus.texts[0][chunk.Start:chunk.End]}
	other := map[string]any{"start": chunk.Start, "end": chunk.End, "text": "They take four days."}
	for _, tt := range []struct {
		name   string
		status int
		chunks []any
		same   bool
	}{
		{"as it was sent", 200, []any{good}, true},
		{"another text", 200, []any{other}, false},
		{"no chunks", 200, []any{}, false},
		{"a chunk too many", 200, []any{good, good}, false},
		{"not there", 404, nil, false},
	} {
		answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			_ = json.NewEncoder(w).Encode(map[string]any{"chunks": tt.chunks, "status": tt.status, "code": "document_unknown"})
		}))
		same, err := corpus.same(t.Context(), &server{client: &client{base: answers.URL, http: answers.Client()}}, 0)
		if err != nil || same != tt.same {
			t.Errorf("%s: %v, %v", tt.name, same, err)
		}
		answers.Close()
	}
}
