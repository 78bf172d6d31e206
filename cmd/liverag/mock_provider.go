package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/bpe"
	"github.com/liverag/liverag/internal/httpd"
	"github.com/liverag/liverag/internal/mockprovider"
	"github.com/liverag/liverag/internal/spell"
)

func mockProviderVerb() verb {
	return verb{
		name: "mock-provider", group: groupCare,
		summary: "Run an embedding endpoint with limits and faults, to rehearse with",
		about: `Serves OpenAI's /v1/embeddings and /v1/models, at no cost, with the latency, the limits and the faults that you ask for. So you can see what happens to your index on a provider's bad day before there is one: every change should become searchable all the same, each once, and only a text that the provider refuses should end up among the dead letters.

Its vectors are word hashes, like those of the model hash/384: what shares words with a question is found. Any model name will do. A token is 4 bytes unless --tokenizer says otherwise, and --usage-factor has it charge more or fewer than it counts.

Limits are --rpm and --tpm. They are buckets that are refilled all the time, as OpenAI has them: a minute's allowance may be used at once unless --burst says less. With --window it all comes back at once instead, at the end of a window that opens with the first request. Requests that are refused for a limit are not charged, but for --charge-refused.

Every answer tells what is left, in the words of --headers: ` + described(mockprovider.Dialects()) + `. A 429 says which limit it is for, and when to come back in the ways of --retry-after; with --quiet it says neither.

--fault draws faults by chance, --script plays them to the first requests in turn. They are: ` + described(mockprovider.Kinds()) + `.

With --server it passes for another program, in its errors and in what it tells of itself: ` + described(mockprovider.Servers()) + `.

--at changes things by the time since the start, as TIME:CHANGE,CHANGE. An outage begins with down (503 to every request) or with ` + strings.Join(mockprovider.Outages(), ", ") + `, and up ends it; requests are not charged meanwhile. Limits and speed change with rpm=N, tpm=N, max-in-flight=N and latency=DURATION.

While requests come it prints a line every few seconds, and totals in the end; GET /stats has them at any time. The floor is the time that the requests which were answered had to take, as the limits go: a client that took about as long, after its first request, has used all that there was.`,
		examples: []example{
			{"a provider that is well, with a latency like a real one's", "liverag mock-provider --latency 120ms --jitter 60ms"},
			{"point liverag at it, in another terminal", "liverag up --embedder openai/mock --openai-base-url http://127.0.0.1:8089/v1   # while liverag mock-provider runs"},
			{"limits of a small account: watch that nothing is answered 429 once they are known", "liverag mock-provider --rpm 500 --tpm 200000 --burst 1s --latency 50ms"},
			{"limits that nobody tells: they have to be found out", "liverag mock-provider --rpm 500 --tpm 200000 --headers none --quiet"},
			{"the windows of a provider that counts refused requests too, and tokens otherwise than we do", "liverag mock-provider --rpm 300 --tpm 100000 --window 1m --charge-refused --usage-factor 1.3"},
			{"limits that are cut to a tenth after 20 seconds, and restored after a minute", "liverag mock-provider --rpm 3000 --tpm 1000000 --at 20s:rpm=300,tpm=100000 --at 60s:rpm=3000,tpm=1000000"},
			{"an outage of ten minutes", "liverag mock-provider --at 30s:down --at 10m30s:up"},
			{"a bad day", "liverag mock-provider --fault 429=0.05,500=0.02,hang=0.01,cut=0.01,truncate=0.01,html=0.01"},
			{"an outage after 50 requests, for 200 requests", "liverag mock-provider --script 'ok*50,503*200'"},
			{"a text that the provider refuses, and inputs that are too long for it", "liverag mock-provider --poison forbidden-word --max-input-tokens 512"},
			{"a text that makes the server fail, which looks like any failure", "liverag mock-provider --poison forbidden-word --poison-status 500"},
			{"text-embeddings-inference, as it takes at most 32 inputs a request of at most 512 tokens", "liverag mock-provider --server tei --max-input-tokens 512 --max-in-flight 8"},
		},
		anyConfig: true,
		setup: func(fs *flag.FlagSet) action {
			m := &mockRun{}
			names, _ := mockprovider.Dialects()
			programs, _ := mockprovider.Servers()
			fs.StringVar(&m.listen, "listen", "127.0.0.1:8089", "`HOST:PORT` to listen on")
			fs.IntVar(&m.cfg.Dim, "dim", 384, "dimension of the vectors")
			fs.IntVar(&m.cfg.MaxDim, "max-dim", 0, "the largest that a request may ask for by dimensions (default: as many as --dim); -1 refuses the parameter")
			fs.StringVar(&m.models, "models", "", "`NAMES` of the models that it has, separated by commas (default: any)")
			fs.StringVar(&m.cfg.Key, "key", "", "`KEY` that callers need; it is a mock's, so keep no real one here")
			fs.BoolVar(&m.cfg.NoBase64, "no-base64", false, "refuse encoding_format base64, as some servers do; ollama and tei answer with numbers then")
			fs.StringVar(&m.cfg.Server, "server", "openai", "the `PROGRAM` that it passes for: "+strings.Join(programs, ", "))
			fs.DurationVar(&m.cfg.Latency, "latency", 0, "how long each answer takes at least")
			fs.DurationVar(&m.cfg.PerToken, "latency-per-token", 0, "how much longer it takes for each token")
			fs.DurationVar(&m.cfg.Jitter, "jitter", 0, "the most that chance adds to it")
			fs.Uint64Var(&m.cfg.Seed, "seed", 1, "`N` that decides what chance does, the same at each run")
			fs.IntVar(&m.cfg.RPM, "rpm", 0, "requests a minute that are allowed; 0 is no limit")
			fs.IntVar(&m.cfg.TPM, "tpm", 0, "tokens a minute that are allowed; 0 is no limit")
			fs.DurationVar(&m.cfg.Burst, "burst", time.Minute, "how long a time's allowance may be used at once")
			fs.DurationVar(&m.cfg.Window, "window", 0, "how long a window is whose allowance comes back at once at its end; 0 is buckets")
			fs.BoolVar(&m.cfg.ChargeRefused, "charge-refused", false, "charge also the requests that are refused for a limit, as some providers do")
			fs.Float64Var(&m.cfg.UsageFactor, "usage-factor", 1, "`N` tokens that are charged for each that is counted")
			fs.StringVar(&m.tokenizer, "tokenizer", bytes4, "`WHAT` counts tokens: "+strings.Join(mockTokenizers, ", "))
			fs.StringVar(&m.cfg.Headers, "headers", "openai", "whose `WORDS` tell the limits: "+strings.Join(names, ", "))
			fs.StringVar(&m.cfg.RetryAfter, "retry-after", "seconds", "`HOW` a 429 says when to come back: some of "+strings.Join(mockprovider.RetryHeaders(), ", ")+" with commas between, or none")
			fs.BoolVar(&m.cfg.RefuseLarge, "refuse-large", false, "never let in a request with more tokens than may be used at once, as OpenAI does it")
			fs.BoolVar(&m.cfg.Quiet, "quiet", false, "a 429 says nothing but that")
			fs.IntVar(&m.cfg.MaxInFlight, "max-in-flight", 0, "requests worked on at once, above which it answers 429; 0 is no limit")
			fs.IntVar(&m.cfg.MaxInputs, "max-inputs", 0, "the most inputs in a request (default: 2048 with openai and azure, 32 with tei, else any number)")
			fs.IntVar(&m.cfg.MaxRequestTokens, "max-request-tokens", 0, "the most tokens in a request; 0 is no limit")
			fs.IntVar(&m.cfg.MaxInputTokens, "max-input-tokens", 0, "the most tokens in an input; 0 is no limit")
			fs.StringVar(&m.cfg.Poison, "poison", "", "`TEXT` that no input may contain: the whole request is refused")
			fs.IntVar(&m.cfg.PoisonStatus, "poison-status", http.StatusBadRequest, "the status that it is refused with, from 400 to 599")
			fs.StringVar(&m.faults, "fault", "", "`KIND=SHARE` of the requests, as in 429=0.05,hang=0.01")
			fs.StringVar(&m.script, "script", "", "what the first requests meet, as `KIND*TIMES` in turn, as in ok*50,503*200")
			fs.Var(&m.at, "at", "what changes then, as `TIME:CHANGE`, such as 30s:down, 90s:up or 20s:rpm=300,tpm=100000; repeatable")
			fs.DurationVar(&m.cfg.Slow, "slow", 10*time.Second, "how long the answer of a drip takes")
			fs.DurationVar(&m.every, "every", 5*time.Second, "how often a line is printed while requests come; 0 is never")
			return m.run
		},
	}
}

// bytes4 counts a token for 4 bytes, rounded up.
const bytes4 = "bytes4"

// mockTokenizers are what tokens can be counted by.
var mockTokenizers = []string{bytes4, bpe.CL100K, bpe.O200K}

// described are names with what they stand for, in one line.
func described(names, does []string) string {
	var list []string
	for i, name := range names {
		list = append(list, name+" ("+does[i]+")")
	}
	return strings.Join(list, "; ")
}

type mockRun struct {
	cfg                                       mockprovider.Config
	listen, models, faults, script, tokenizer string
	at                                        stringList
	every                                     time.Duration
}

func (m *mockRun) run(ctx context.Context, c *call) (err error) {
	if len(c.Args) > 0 {
		return &usageError{detail: "mock-provider takes no arguments: everything is a flag"}
	}
	cfg := m.cfg
	if cfg.Faults, err = mockprovider.ParseFaults(m.faults); err != nil {
		return &usageError{detail: "--fault: " + err.Error()}
	}
	if cfg.Script, err = mockprovider.ParseScript(m.script); err != nil {
		return &usageError{detail: "--script: " + err.Error()}
	}
	if cfg.Schedule, err = mockprovider.ParseSchedule(strings.Join(m.at, ";")); err != nil {
		return &usageError{detail: "--at: " + err.Error()}
	}
	if m.tokenizer != bytes4 {
		encoding, err := bpe.Load(m.tokenizer)
		if err != nil {
			return &usageError{detail: fmt.Sprintf("--tokenizer is one of %s, not %q", strings.Join(mockTokenizers, ", "), m.tokenizer)}
		}
		cfg.Tokens = encoding.Count
	}
	if m.models != "" {
		cfg.Models = strings.Split(m.models, ",")
	}
	var hashes sync.Map // by dimension
	cfg.Vectors = func(ctx context.Context, dim int, inputs []string) ([][]float32, error) {
		model, known := hashes.Load(dim)
		if !known {
			model, _ = hashes.LoadOrStore(dim, embedder.NewHash(dim))
		}
		return model.(*embedder.Hash).Embed(ctx, embedder.Index, inputs)
	}
	provider, err := mockprovider.New(cfg)
	if err != nil {
		return &usageError{detail: err.Error()}
	}
	// It holds nobody's data, so it may be reached from other machines.
	listener, err := httpd.Listen(m.listen, httpd.ListenOptions{Explicit: true, Insecure: true})
	if err != nil {
		return err
	}
	base := "http://" + listener.Addr().String() + "/v1"
	if c.JSON {
		err = c.Out.JSON(map[string]any{"url": base})
	} else {
		c.Out.Printf("a mock embedding provider of %d dimensions listens at %s\n", cfg.Dim, c.Out.bold(base))
		name := cmp.Or(m.models, "mock")
		name, _, _ = strings.Cut(name, ",")
		if cfg.Key != "" {
			c.Out.Printf("  export OPENAI_API_KEY=%s\n", cfg.Key)
		}
		c.Out.Printf("  liverag up --embedder openai/%s --openai-base-url %s\n", name, base)
	}
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: provider, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	var tick <-chan time.Time
	if m.every > 0 {
		ticker := time.NewTicker(m.every)
		defer ticker.Stop()
		tick = ticker.C
	}
	last := provider.Stats()
	for {
		select {
		case <-tick:
			now := provider.Stats()
			if now.Requests == last.Requests && now.Answered == last.Answered {
				continue
			}
			if err := printMock(c, now, last, m.every); err != nil {
				return errors.Join(err, server.Close())
			}
			last = now
		case err := <-served:
			return fmt.Errorf("serve %s: %w", m.listen, err)
		case <-ctx.Done():
			err := server.Close() // what hangs has no better end
			<-served
			return errors.Join(err, printMock(c, provider.Stats(), mockprovider.Stats{}, 0))
		}
	}
}

// printMock prints what happened since before; every is 0 for the totals at the end.
func printMock(c *call, now, before mockprovider.Stats, every time.Duration) error {
	if c.JSON {
		return c.Out.JSON(now)
	}
	head, rate := "in all", ""
	if every > 0 {
		head = time.Now().Format("15:04:05")
		rate = fmt.Sprintf(" (%.1f requests and %s tokens a second)", float64(now.Requests-before.Requests)/every.Seconds(), spell.Thousands(int64(float64(now.Tokens-before.Tokens)/every.Seconds())))
	}
	line := fmt.Sprintf("%s  %s, %s answered with %s, %s%s", head, count(now.Requests-before.Requests, "request"), spell.Thousands(now.Answered-before.Answered), count(now.Inputs-before.Inputs, "vector"),
		count(now.Tokens-before.Tokens, "token"), rate)
	if n := now.RateLimited - before.RateLimited; n > 0 {
		var of []string
		for _, limit := range []struct {
			name        string
			now, before int64
		}{
			{"of requests", now.LimitedBy.Requests, before.LimitedBy.Requests},
			{"of tokens", now.LimitedBy.Tokens, before.LimitedBy.Tokens},
			{"at once", now.LimitedBy.Crowd, before.LimitedBy.Crowd},
		} {
			if n := limit.now - limit.before; n > 0 {
				of = append(of, spell.Thousands(n)+" "+limit.name)
			}
		}
		line += "; " + c.Out.warn(spell.Thousands(n)+" over a limit") + " (" + strings.Join(of, ", ") + ")"
	}
	if n := now.Refused - before.Refused; n > 0 {
		line += fmt.Sprintf("; %s refused", spell.Thousands(n))
	}
	var met []string
	for _, kind := range slices.Sorted(maps.Keys(now.Faults)) {
		if n := now.Faults[kind] - before.Faults[kind]; n > 0 {
			met = append(met, fmt.Sprintf("%s %s", kind, spell.Thousands(n)))
		}
	}
	if len(met) > 0 {
		line += "; faults: " + strings.Join(met, ", ")
	}
	if n := now.Gone - before.Gone; n > 0 {
		line += fmt.Sprintf("; %s not waited for", spell.Thousands(n))
	}
	if every == 0 {
		line += fmt.Sprintf("; at most %d at once, and %s in one second", now.MostInFlight, count(now.BusiestSecond, "request"))
		if now.Answered > 0 {
			line += fmt.Sprintf("; %.1f inputs a request; the last answer %.1f s after the first request, where the floor is %.1f s", now.InputsPerRequest, now.LastAnswer-now.FirstRequest, now.Floor)
		}
	}
	c.Out.Printf("%s\n", line)
	return nil
}
