package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/internal/mockprovider"
)

// limitsServer is a server on a directory of its own.
type limitsServer struct {
	*server
	dir  string
	keep bool
}

// serve starts this program with settings of its own, and nothing of the caller's.
func (b *limitsBench) serve(ctx context.Context, settings map[string]any) (*limitsServer, error) {
	dir, err := os.MkdirTemp("", "liverag-bench-")
	if err != nil {
		return nil, err
	}
	s := &limitsServer{dir: dir, keep: b.keep}
	if b.keep {
		b.call.Err.Printf("data: %s\n", dir)
	}
	text, err := yaml.Marshal(settings)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, defaultFile), text, 0o600)
	}
	if err == nil {
		s.server, err = launchServer(ctx, dir, bareEnviron(), "--log_level", "warn")
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the server and takes its directory away.
func (s *limitsServer) Close() error {
	if s.server != nil {
		if _, err := s.stop(); err != nil {
			_ = s.cmd.Process.Kill()
		}
		<-s.gone
	}
	if s.keep {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// end closes the server. An error that there was gets what the server said.
func (s *limitsServer) end(err error) error {
	closed := s.Close()
	if said := strings.TrimSpace(s.stderr.String()); err != nil && said != "" {
		err = fmt.Errorf("%w; the server says:\n%s", err, said)
	}
	return errors.Join(err, closed)
}

// bareEnviron is the environment without what liverag reads from it.
func bareEnviron() []string {
	var out []string
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, envPrefix) && !strings.HasPrefix(pair, "OPENAI_") {
			out = append(out, pair)
		}
	}
	return out
}

// endpointSettings are those of a server that embeds with a rehearsal. openai adds to the section of that name.
func endpointSettings(r *rehearsal, recipe limitsRecipe, openai map[string]any) map[string]any {
	section := map[string]any{"base_url": r.base, "api_key": "mock"}
	for name, value := range openai {
		section[name] = value
	}
	return map[string]any{"chunker": recipe.strategy, "tokens": recipe.tokens, "embedder": "openai/" + limitsModel, "openai": section}
}

// patienceFor is how long a run may take before it is given up.
func patienceFor(floor time.Duration) time.Duration { return 10*floor + 2*time.Minute }

// limitsTrial is one variant of a scenario: what is sent, to a provider that allows so much.
type limitsTrial struct {
	variant  string
	allowed  allowance
	provider mockprovider.Config
	openai   map[string]any // settings of that section, beside the endpoint's
	corpus   *limitsCorpus
	requests int64 // the fewest that the corpus takes
}

// rehearse starts the provider, and a server that embeds with it, and has do use them.
func (b *limitsBench) rehearse(ctx context.Context, t *limitsTrial, do func(r *rehearsal, s *limitsServer) error) error {
	r, err := rehearse(t.provider)
	if err != nil {
		return err
	}
	s, err := b.serve(ctx, endpointSettings(r, t.corpus.recipe, t.openai))
	if err != nil {
		return errors.Join(err, r.Close())
	}
	return errors.Join(s.end(do(r, s)), r.Close())
}

// begin starts the clock when nothing of the allowance is used.
func (b *limitsBench) begin(ctx context.Context, t *limitsTrial, r *rehearsal, who string) (time.Time, error) {
	b.call.Err.Status("%s, %s: %s with %s, %s", b.scenario, t.variant, who, count(len(t.corpus.texts), "document"), count(t.corpus.total, "chunk"))
	if err := t.allowed.refilled(ctx); err != nil {
		return time.Time{}, err
	}
	err := r.start()
	return time.Now(), err
}

// processor is how many seconds of processors a process has used; false where that is not known.
func processor(pid string) (seconds float64, ok bool) {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0, false
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name before it may have spaces
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, false
	}
	for _, field := range fields[11:13] { // of the program, and of the system for it
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, false
		}
		seconds += ticks / 100
	}
	return seconds, true
}

// busy measures from now on how much the server, and this process with the provider, use of the processors.
func (s *limitsServer) busy() (add func(out *limitsResult)) {
	pids := [2]string{strconv.Itoa(s.cmd.Process.Pid), "self"}
	var before [2]float64
	for i, pid := range pids {
		before[i], _ = processor(pid)
	}
	return func(out *limitsResult) {
		for i, name := range []string{"processors, the server", "processors, provider and sender"} {
			if after, ok := processor(pids[i]); ok {
				out.add(name, after-before[i], "s")
			}
		}
	}
}

// index sends the corpus to a server and measures until all of it is searchable. meanwhile gets the tokens of its changes.
func (b *limitsBench) index(ctx context.Context, t *limitsTrial, r *rehearsal, s *limitsServer, meanwhile func(ctx context.Context, begin time.Time, tokens []string) ([]measure, error)) (*limitsResult, error) {
	begin, err := b.begin(ctx, t, r, ours)
	if err != nil {
		return nil, err
	}
	busy := s.busy()
	tokens, err := t.corpus.sendAll(ctx, s.server)
	if err != nil {
		return nil, err
	}
	g, each := errgroup.WithContext(ctx)
	var more []measure
	if meanwhile != nil {
		g.Go(func() (err error) {
			more, err = meanwhile(each, begin, tokens)
			return err
		})
	}
	var took time.Duration
	g.Go(func() error {
		err := waitSearchable(each, s.server, "live", patienceFor(b.floorOf(t, r)), tokens...)
		took = time.Since(begin)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	result, err := b.result(t, ours, r, took)
	if err != nil {
		return nil, err
	}
	busy(result)
	result.More = append(result.More, more...)
	result.Lost, err = t.corpus.lost(ctx, s.server)
	return result, err
}

// floorOf is the earliest that the corpus can be embedded.
func (b *limitsBench) floorOf(t *limitsTrial, r *rehearsal) time.Duration {
	mock, _ := r.current()
	return mock.Floor(t.requests, t.corpus.needed) + t.allowed.latency
}

// result is what the provider says of a client's run.
func (b *limitsBench) result(t *limitsTrial, client string, r *rehearsal, took time.Duration) (*limitsResult, error) {
	stats, requests := r.settled(), r.requests()
	floor := b.floorOf(t, r)
	out := &limitsResult{
		Scenario: b.scenario, Variant: t.variant, Client: client, Documents: len(t.corpus.texts), Chunks: t.corpus.total,
		TokensNeeded: t.corpus.needed, TokensPaid: stats.Tokens + stats.TokensFailed, TokensFailed: stats.TokensFailed,
		Throttled: stats.RateLimited, Failed: stats.Refused + stats.Gone,
		Seconds: took.Seconds(), Floor: floor.Seconds(), Ratio: took.Seconds() / floor.Seconds(), Requests: stats.Requests, InputsPerRequest: stats.InputsPerRequest,
		requests: requests,
	}
	for _, n := range stats.Faults {
		out.Failed += n
	}
	if len(requests) > 0 {
		out.add("to the first request", stats.FirstRequest, "s")
		if t.allowed.tpm > 0 && t.provider.Schedule == nil && t.provider.Faults == nil {
			out.add("unused", t.allowed.unused(requests).Seconds(), "s")
		}
		out.add("after the last answer", took.Seconds()-stats.LastAnswer, "s")
	}
	b.results = append(b.results, out)
	return out, b.note(t.variant, client, requests)
}

// unused is for how long an allowance of tokens that never changed stood full between the first request and the last that was answered with vectors.
func (a allowance) unused(requests []providerRequest) time.Duration {
	rate := float64(a.tpm) / 60
	size := rate * a.burst.Seconds()
	level, wasted, at := size, 0.0, requests[0].at
	for _, q := range requests {
		if q.tokens == 0 {
			continue
		}
		level += (q.at - at).Seconds() * rate
		if level > size {
			wasted, level = wasted+level-size, size
		}
		level, at = level-float64(q.tokens), q.at
	}
	return time.Duration(wasted / rate * float64(time.Second))
}

// alternative has the plain client embed the corpus, with a provider of its own.
func (b *limitsBench) alternative(ctx context.Context, t *limitsTrial) (out *limitsResult, err error) {
	r, err := rehearse(t.provider)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	begin, err := b.begin(ctx, t, r, theirs)
	if err != nil {
		return nil, err
	}
	longest := 2*b.floorOf(t, r) + time.Minute
	if b.quick {
		longest = 2*b.floorOf(t, r) + time.Second
	}
	timed, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	done, lost := newPlainClient(r.base).run(timed, t.corpus.inputs)
	took := time.Since(begin)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	out, err = b.result(t, theirs, r, took)
	if err == nil {
		out.Lost, out.Unfinished = lost, len(t.corpus.texts)-done-lost
	}
	return out, err
}

// thousand is the allowance of the scenarios with a thousand documents, and the documents, so long that the floor is as it was asked for.
func (b *limitsBench) thousand(ctx context.Context, variant, tells string, burst time.Duration) (*limitsTrial, error) {
	a := allowance{rpm: 3000, tpm: 1_000_000, burst: burst, latency: 50 * time.Millisecond}
	if b.quick {
		a.burst = min(a.burst, time.Second)
	}
	tokens := float64(a.tpm) / 60 * (a.burst + b.floor).Seconds()
	texts, err := longTexts(b.documents, int(tokens)/b.documents)
	if err != nil {
		return nil, err
	}
	corpus, err := newLimitsCorpus(ctx, texts, limitsRecipe{"markdown", 200})
	return &limitsTrial{variant: variant, allowed: a, provider: a.provider(tells), openai: a.settings(tells), corpus: corpus, requests: 1}, err
}

func (b *limitsBench) thousandOf(ctx context.Context, variant string) error {
	tells, text, _ := strings.Cut(variant, "-")
	burst, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	t, err := b.thousand(ctx, variant, tells, burst)
	if err != nil {
		return err
	}
	err = b.rehearse(ctx, t, func(r *rehearsal, s *limitsServer) error {
		_, err := b.index(ctx, t, r, s, nil)
		return err
	})
	// How the provider tells its limits makes no difference to a client that does not listen.
	if err == nil && b.plain && tells == bySettings {
		_, err = b.alternative(ctx, t)
	}
	return err
}

// besideName is the generation of the second model.
const besideName = "beside"

func (b *limitsBench) trickleOf(ctx context.Context, variant string) error {
	a := allowance{rpm: 3, tpm: 10_000, burst: time.Minute, latency: 50 * time.Millisecond}
	if b.quick { // the same in sixtieths of the time
		a.rpm, a.tpm, a.burst = 60*a.rpm, 60*a.tpm, a.burst/60
	}
	texts := make([]string, 47)
	for i := range texts {
		var err error
		if texts[i], err = exactText(i, 400); err != nil {
			return err
		}
	}
	corpus, err := newLimitsCorpus(ctx, texts, limitsRecipe{"whole", 400})
	if err != nil {
		return err
	}
	t := &limitsTrial{variant: variant, allowed: a, provider: a.provider(variant), openai: a.settings(variant), corpus: corpus, requests: 1}
	err = b.rehearse(ctx, t, func(r *rehearsal, s *limitsServer) error {
		if err := makeGeneration(ctx, s.server, besideName, map[string]any{"embedder": map[string]any{"model": "local/static"}}); err != nil {
			return err
		}
		_, err := b.index(ctx, t, r, s, func(ctx context.Context, begin time.Time, tokens []string) ([]measure, error) {
			err := waitSearchable(ctx, s.server, besideName, time.Minute, tokens...)
			return []measure{{"searchable with the second model after", time.Since(begin).Seconds(), "s"}}, err
		})
		return err
	})
	if err == nil && b.plain && variant == bySettings {
		_, err = b.alternative(ctx, t)
	}
	return err
}

// makeGeneration starts a replay and waits until it has caught up.
func makeGeneration(ctx context.Context, s *server, name string, recipe map[string]any) error {
	if err := s.client.do(ctx, "POST", "/generations", map[string]any{"name": name, "recipe": recipe}, nil, options{}); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Minute); ; {
		var g generation
		if err := s.client.do(ctx, "GET", "/generations/"+name, nil, &g, options{}); err != nil {
			return err
		}
		switch {
		case g.State == "ready":
			return nil
		case g.State == "failed" || g.State == "cancelled", time.Now().After(deadline):
			return fmt.Errorf("generation %s is %s", name, g.State)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}
