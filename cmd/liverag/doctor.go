package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/diskspace"
	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/stream/kafka"
)

func doctorVerb() verb {
	return verb{
		name: "doctor", group: groupCare,
		summary: "Look at everything that liverag needs here, and say what to do about what is wrong",
		about: `Looks at the configuration, the machine, the data directory, the address, the running server and its freshness, the model, Kafka, Milvus and the clock. Each line is ok, warn or FAIL, with what to do. The exit code is 1 if anything FAILs.

The model embeds one sentence, which an endpoint may charge for. Of Milvus it says which version it is, what that can't do, and which collections are the corpus'.

It changes nothing, except that a Kafka topic of ours that is missing beside an existing corpus is created.`,
		examples: []example{
			{"is everything all right here?", "liverag doctor"},
			{"is the cluster reachable with these settings?", "LIVERAG_KAFKA_SASL_PASSWORD=… liverag doctor --config production.yaml"},
			{"can this endpoint be the model?", "OPENAI_API_KEY=… liverag doctor --embedder openai/text-embedding-3-small"},
			{"what can this Milvus do?", "liverag doctor --kafka broker:9092 --milvus milvus:19530"},
			{"for a monitor", "liverag doctor --json | jq '.checks[] | select(.state != \"ok\")'"},
		},
		settings:  []string{"config", "data", "listen", "insecure_listen", "server", "corpus", "kafka.*", "milvus.*", "embedder", "openai.*", "documents.max_bytes", "log.max_bytes"},
		anyConfig: true,
		setup:     func(*flag.FlagSet) action { return runDoctor },
	}
}

const (
	stateOK   = "ok"
	stateWarn = "warn"
	stateFail = "FAIL"

	// kafkaTimeout bounds the look at the brokers.
	kafkaTimeout = 5 * time.Second
	// diskLittle and diskTooLittle are free bytes of the data directory's disk.
	diskLittle    = 2 << 30
	diskTooLittle = 100 << 20
	// clockSkew is how far two clocks may be apart; the Date header has whole seconds.
	clockSkew = 3 * time.Second
)

// check is one line of the doctor.
type check struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	// Do says what to do about it.
	Do string `json:"do,omitempty"`
}

func ok(name, detail string, args ...any) check {
	return check{name, stateOK, fmt.Sprintf(detail, args...), ""}
}

func runDoctor(ctx context.Context, c *call) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "doctor takes no arguments"}
	}
	checks := []check{ok("program", "%s", readBuild()), checkKernel()}
	checks = append(checks, checkConfig(c)...)
	if c.Settings != nil {
		checks = append(checks, checkData(c.Config)...)
		checks = append(checks, checkServer(ctx, c)...)
		checks = append(checks, checkModel(ctx, c.Config)...)
		if len(c.Config.Kafka.Brokers) > 0 {
			checks = append(checks, checkKafka(ctx, c.Config))
		}
		if c.Config.Milvus.Address != "" {
			checks = append(checks, checkMilvus(ctx, c.Config)...)
		}
	}
	checks = append(checks, checkClock(time.Now(), readBuild().Time))
	failed := 0
	for _, one := range checks {
		if one.State == stateFail {
			failed++
		}
	}
	if c.JSON {
		if err := c.Out.JSON(map[string]any{"ok": failed == 0, "checks": checks}); err != nil {
			return err
		}
	} else {
		for _, one := range checks {
			paint := map[string]func(string) string{stateOK: c.Out.good, stateWarn: c.Out.warn, stateFail: c.Out.bad}[one.State]
			c.Out.Printf("%s%*s  %-9s  %s\n", paint(one.State), 4-len(one.State), "", one.Name, plain(one.Detail))
			if one.Do != "" {
				c.Out.Printf("%17s%s\n", "", plain(one.Do))
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%s failed", count(failed, "check"))
	}
	return nil
}

func checkKernel() check {
	kernel := simd.Kernel()
	one := ok("cpu", "%s/%s, %s, kernel %s", runtime.GOOS, runtime.GOARCH, count(runtime.GOMAXPROCS(0), "processor"), kernel)
	if kernel == "go" {
		one.State, one.Do = stateWarn, "no vector instructions are used: searching and embedding take several times as long as with AVX2, AVX-512 or NEON"
	}
	return one
}

func checkConfig(c *call) []check {
	var checks []check
	if c.ConfigErr != nil {
		for line := range strings.SplitSeq(c.ConfigErr.Error(), "\n") {
			checks = append(checks, check{"config", stateFail, line, "`liverag help config` says how settings are spelled, docs/CONFIG.md lists them"})
		}
		return checks
	}
	changed := 0
	for _, s := range c.Settings.All() {
		if !c.Settings.Origin(s.Name).IsDefault() {
			changed++
		}
	}
	from := "no " + defaultFile + " here"
	if c.Config.File != "" {
		from = c.Config.File
	}
	return []check{ok("config", "%s, %s not the default (`liverag config --changed`)", from, count(changed, "setting"))}
}

func checkData(cfg *Config) []check {
	full, err := filepath.Abs(cfg.Data)
	if err != nil {
		full = cfg.Data
	}
	fail := func(do, detail string, args ...any) []check {
		return []check{{"data", stateFail, fmt.Sprintf(detail, args...), do}}
	}
	info, err := os.Stat(full)
	exists := err == nil
	switch {
	case exists && !info.IsDir():
		return fail("choose a directory with --data", "%s is no directory", full)
	case !exists && !errors.Is(err, fs.ErrNotExist):
		return fail("choose another directory with --data", "%s can't be looked at: %v", full, unwrapPath(err))
	}
	// What is not there yet is made in the nearest folder that is.
	place := full
	for !exists {
		parent := filepath.Dir(place)
		if parent == place {
			break
		}
		place = parent
		_, err := os.Stat(place)
		exists = err == nil
	}
	if err := tryWriting(place); err != nil {
		return fail("make it writable for this user, or choose another with --data", "%s is not writable: %v", place, unwrapPath(err))
	}
	state := "is there"
	if place != full {
		state = "will be made by `liverag up`"
	} else if pid := lockedBy(filepath.Join(full, "log", "lock")); pid != "" {
		state = "is in use by process " + pid
	}
	checks := []check{ok("data", "%s %s and is writable", full, state)}
	free, err := diskspace.Free(place)
	if err != nil {
		return append(checks, check{"disk", stateWarn, fmt.Sprintf("free space is not known: %v", err), ""})
	}
	disk := ok("disk", "%s free", humanBytes(free))
	switch {
	case free < diskTooLittle:
		disk.State, disk.Do = stateFail, "free some space, or choose a directory on another disk with --data"
	case free < diskLittle+uint64(cfg.Log.MaxBytes):
		disk.State, disk.Do = stateWarn, fmt.Sprintf("the log alone may grow to %s, and the index comes on top", cfg.Log.MaxBytes)
	}
	return append(checks, disk)
}

// tryWriting makes a file and takes it away.
func tryWriting(dir string) error {
	f, err := os.CreateTemp(dir, ".liverag-doctor-")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func humanBytes(n uint64) string {
	switch {
	case n >= 1<<40:
		return fmt.Sprintf("%.1f TiB", float64(n)/(1<<40))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}

// checkServer looks at the liverag that runs, or at whether one could be started.
func checkServer(ctx context.Context, c *call) []check {
	cl := c.client(ctx)
	const look = 5 * time.Second
	err := cl.do(ctx, "GET", "/healthz", nil, nil, options{timeout: look})
	if c.Config.Server != "" && err != nil {
		return []check{{"server", stateFail, err.Error(), "check --server, and that it can be reached from here"}}
	}
	if err != nil {
		return []check{checkPort(c)}
	}
	checks := []check{ok("server", "a liverag answers at %s", cl.base)}
	if err := cl.do(ctx, "GET", "/readyz", nil, nil, options{timeout: look}); err != nil {
		checks = append(checks, check{"ready", stateWarn, err.Error(), "it is still starting, or its log can't be reached: its own messages say which"})
		return checks
	}
	checks = append(checks, ok("ready", "queries and writes are served"))
	checks = append(checks, checkFreshness(ctx, cl, look)...)
	checks = append(checks, checkGenerations(ctx, cl, look)...)
	if one, ok := checkSkew(ctx, cl, look); ok {
		checks = append(checks, one)
	}
	return checks
}

// checkPort tells whether the listen address is free.
func checkPort(c *call) check {
	listener, err := net.Listen("tcp", c.Config.Listen)
	if err == nil {
		listener.Close()
		return ok("server", "none runs; %s is free (`liverag up` starts one)", c.Config.Listen)
	}
	one := check{"server", stateFail, fmt.Sprintf("none runs, and %s can't be listened on: %v", c.Config.Listen, errors.Unwrap(err)), "stop what has the port, or choose another with --listen"}
	if c.Settings.Origin("listen").IsDefault() {
		one.State, one.Do = stateWarn, "`liverag up` moves on to the next free port"
	}
	return one
}

// measuredFreshness is the part of GET /freshness that the doctor judges.
type measuredFreshness struct {
	SLO struct {
		Target     string  `json:"target"`
		Percentile float64 `json:"percentile"`
		Met        bool    `json:"met"`
	} `json:"slo"`
	Entered struct {
		P99   string `json:"p99"`
		Count int64  `json:"count"`
	} `json:"time_to_searchable"`
	freshness
	Embedding struct {
		Providers []embedder.Provider `json:"providers"`
	} `json:"embedding"`
}

func checkFreshness(ctx context.Context, cl *client, timeout time.Duration) []check {
	var f measuredFreshness
	if err := cl.do(ctx, "GET", "/freshness", nil, &f, options{timeout: timeout}); err != nil {
		return []check{{"freshness", stateWarn, err.Error(), "the log may be out of reach: its own messages say more"}}
	}
	lag := int64(0)
	for _, p := range f.Partitions {
		lag += p.Lag
	}
	behind := "caught up with the log"
	if lag > 0 {
		behind = count(lag, "change") + " behind the log"
	}
	one := ok("freshness", "%s; 99 %% of %s searchable within %s", behind, count(f.Entered.Count, "change"), f.Entered.P99)
	if f.Entered.Count == 0 {
		one = ok("freshness", "%s; no change measured yet", behind)
	} else if !f.SLO.Met {
		one.State = stateWarn
		one.Do = fmt.Sprintf("the objective is %g %% within %s: `liverag generations` shows whether a replay runs; a smaller model or fewer changes at once help", 100*f.SLO.Percentile, f.SLO.Target)
	}
	return append([]check{one}, checkProviders(f.Embedding.Providers, time.Now())...)
}

// checkProviders says how it stands with the endpoints of the live generation's model.
func checkProviders(all []embedder.Provider, now time.Time) []check {
	var checks []check
	works := slices.ContainsFunc(all, func(p embedder.Provider) bool { return !p.Away() })
	for _, p := range all {
		limits := cmp.Or(p.Limits(), "no limit is known")
		one := ok("provider", "%s is ready; %s; %s, %s refused for too much (429), %s failed", p.Name, limits, count(p.Requests, "request"), spell.Thousands(p.Throttled), spell.Thousands(p.Failed))
		if p.State != embedder.Ready {
			t := trouble{p.Since, p.Trouble(), p.State, p.NextTry}
			one = check{"provider", stateWarn, t.say(now), ""}
		}
		switch p.State {
		case embedder.Held:
			one.Do = "nothing is lost, and no more than it allows is sent: ask the provider for more"
			if p.Source == "settings" {
				one.Do = "nothing is lost: if the provider allows more, raise openai.rpm and openai.tpm"
			}
		case embedder.Paused:
			one.Do = "`liverag spending` shows what was spent on what"
		case embedder.Down:
			one.Do = "nothing is lost, and it goes on by itself when the provider answers"
		case embedder.Refused:
			one.Do = "nothing is lost: check openai.api_key (or OPENAI_API_KEY), the model's name, and the account with the provider"
		}
		if !works {
			one.State = stateFail
		}
		checks = append(checks, one)
	}
	return checks
}

func checkGenerations(ctx context.Context, cl *client, timeout time.Duration) []check {
	var all []generation
	if err := cl.do(ctx, "GET", "/generations", nil, &all, options{timeout: timeout}); err != nil {
		return []check{{"index", stateWarn, err.Error(), ""}}
	}
	var checks []check
	for _, g := range all {
		one := ok("index", "%s is %s, %s, %s", g.Name, g.State, g.recipe(), count(g.Progress.Documents, "document"))
		if len(g.Alias) > 0 {
			one.Detail += ", " + strings.Join(g.Alias, ", ")
		}
		switch {
		case g.Trouble != nil && g.Trouble.Detail != "":
			one.State, one.Do = stateWarn, g.Trouble.say(time.Now())
			if len(g.Alias) > 0 && !g.Trouble.passing() {
				one.State = stateFail
			}
		case g.State == "failed":
			one.State, one.Do = stateWarn, "`liverag drop "+g.Name+"` clears it away"
		}
		checks = append(checks, one)
	}
	return checks
}

// checkSkew compares the server's clock with ours by the Date of an answer.
func checkSkew(ctx context.Context, cl *client, timeout time.Duration) (check, bool) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", cl.base+"/healthz", nil)
	if err != nil {
		return check{}, false
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		return check{}, false
	}
	defer resp.Body.Close()
	theirs, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return check{}, false
	}
	skew := time.Since(theirs).Abs()
	if skew <= clockSkew {
		return ok("skew", "the server's clock agrees with this one"), true
	}
	return check{"skew", stateWarn, fmt.Sprintf("the server's clock is %s away from this one", short(skew)), "set both by NTP: freshness is measured with them"}, true
}

// checkKafka connects to the brokers as `liverag up` would, but writes no document.
func checkKafka(ctx context.Context, cfg *Config) check {
	brokers := strings.Join(cfg.Kafka.Brokers, ", ")
	conf := cfg.Kafka.kafka()
	conf.Corpus, conf.ReadOnly, conf.Timeout, conf.Logger = cfg.Corpus, true, kafkaTimeout, slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	begin := time.Now()
	log, err := kafka.Open(ctx, conf)
	switch {
	case err == nil:
		defer log.Close()
		identity, err := log.Identity(ctx)
		if err != nil {
			return check{"kafka", stateFail, err.Error(), "the broker went away while it was looked at: try again"}
		}
		return ok("kafka", "%s answers within %s; topic %s has %s", brokers, short(time.Since(begin)), identity.Topic, count(identity.Partitions, "partition"))
	case strings.Contains(err.Error(), "does not exist"):
		return ok("kafka", "%s answers within %s; topic %s will be made by `liverag up`", brokers, short(time.Since(begin)), cfg.Corpus)
	case errors.Is(err, stream.ErrUnavailable):
		return check{"kafka", stateFail, err.Error(), "check kafka.brokers, that the port is open from here, and that kafka.tls.enabled is what the broker expects"}
	}
	return check{"kafka", stateFail, err.Error(), "check the kafka.tls and kafka.sasl settings: `liverag config kafka` shows where each came from"}
}

// checkClock catches a clock that was never set, which stands before the day the program was built: times of changes would be nonsense.
func checkClock(now time.Time, built string) check {
	one := ok("clock", "%s", now.Format(time.RFC3339))
	if day, err := time.Parse(time.RFC3339, built); err == nil && now.Before(day.Add(-24*time.Hour)) {
		one.State, one.Do = stateFail, fmt.Sprintf("this program was built later than that (%s): set the clock, freshness is measured with it", day.Format(time.DateOnly))
	}
	return one
}
