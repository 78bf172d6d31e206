package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/evals"
	evalfresh "github.com/liverag/liverag/evals/freshness"
	"github.com/liverag/liverag/internal/spell"
)

func evalFreshnessVerb() verb {
	return verb{
		name: "eval freshness", group: groupQuestions,
		summary: "Replay real changes through a running liverag, and catch every late or stale answer",
		about: `Sends the changes of a stream to a running liverag, over its HTTP API and at a chosen pace, asks it questions meanwhile, and says how long it took until answers showed each change, and whether any answer held what was gone. It does not take the server's word for it: it asks until the change is there. Nothing else in the index is touched: the documents' ids begin with the run's name, their metadata hold it, every question filters on it, and all of them are removed at the end, also after Ctrl-C. A run that was killed is removed by --cleanup RUN.

The stream is a file of JSON lines, plain or .gz: a recorded history, {"seq":0,"ts":"…","op":"add|modify|delete|rename","key":"…","old_key":"…","content":"…"}, or documents as import takes them. The probes are lines that say from which change to which a text is in the documents: {"text":"…","raw":"…","from_seq":12,"to_seq":96}. Without probes, lines of the documents are asked.

What is measured: time to searchable, from sending a change until an answer shows it, for writes and for deletes. never: changes that no answer showed within --patience, and documents that are not as they should be at the end. ghost_rate: returned chunks of deleted documents. mixed_version_rate: answers with two versions of one document. stale_rate@10: answers with a chunk whose text no live document has any more; outdated_rate@10: with any chunk of an older version than is due. fresh_recall@10: how often a text that is live is found. fresh_share and mean_age: the share of documents that are up to date, and how old the earliest missing change is, as Cho and Garcia-Molina define them.

A change is due in an answer as soon as the server says so: by satisfying after, or by as_of. Half of the questions carry tokens, so that it is well defined what their answers have to hold; the others are asked as users ask, and "felt" says how they looked against all that was in the log when they were asked: there, what is on its way counts too.

--slo names what has to hold, with commas between, as in 'p99<2s,deletes.p99<2s,fresh_recall@10>=0.5'; p50, p95, p99 and max are those of time_to_searchable. Unless said otherwise never, ghost_rate, mixed_version_rate and stale_rate have to be 0. If one does not hold, the exit code is 1.

--observe writes nothing at all: it reads the topic in Kafka beside the indexer, without a consumer group, and asks --server for a sample of the changes that others make until they are there. The embedded log can't be read from outside: there, replay a stream.`,
		examples: []example{
			{"how fresh is what runs here?", "liverag eval freshness --stream changes.jsonl.gz --probes probes.jsonl.gz"},
			{"gate a deployment on it", "liverag eval freshness --stream changes.jsonl.gz --limit 500 --slo 'p99<2s,deletes.p99<2s' --junit freshness.xml"},
			{"twelve years of edits in half a minute, at their own times", "liverag eval freshness --stream changes.jsonl.gz --speed 10000000x"},
			{"watch production for ten minutes, and write nothing", "liverag eval freshness --observe --kafka broker1:9092 --server http://rag:8080 --duration 10m"},
			{"a run was killed: remove what it left", "liverag eval freshness --cleanup freshness-1121-152204-3f9a --stream changes.jsonl.gz"},
		},
		settings: append([]string{"corpus", "kafka.*", "mapping.*", "documents.max_bytes"}, clientSettings...),
		setup: func(fs *flag.FlagSet) action {
			f := &freshnessFlags{}
			fs.StringVar(&f.stream, "stream", "", "`FILE` of changes to replay")
			fs.StringVar(&f.probes, "probes", "", "`FILE` of texts that come and go with them")
			fs.Float64Var(&f.rate, "rate", 50, "how many changes a second are sent")
			fs.StringVar(&f.speed, "speed", "", "send them at their own times instead, so many times as quick, as in `1000x`")
			fs.IntVar(&f.limit, "limit", 0, "send only the first so many changes; 0 for all")
			fs.DurationVar(&f.maxDuration, "max-duration", 0, "end the sending after so long; 0 does not")
			fs.Float64Var(&f.questions, "questions", 10, "how many probes are asked a second")
			fs.Float64Var(&f.samples, "samples", 0, "how many changes a second are watched on their way into the answers (default 50; 5 with --observe)")
			fs.IntVar(&f.k, "k", 10, "how many hits the questions ask for")
			fs.StringVar(&f.mode, "mode", "", "`MODE` of the questions' search: hybrid, dense or lexical (default the server's)")
			fs.StringVar(&f.generation, "generation", "", "`NAME` of the generation that is asked (default live)")
			fs.DurationVar(&f.patience, "patience", 0, "how long a change may take before it counts as never (default 5m; 1m with --observe)")
			fs.StringVar(&f.slo, "slo", "", "what has to hold, as in `p99<2s,stale_rate=0`")
			fs.Uint64Var(&f.seed, "seed", 1, "chooses the probes that are asked")
			fs.StringVar(&f.name, "run", "", "`NAME` of the run (default freshness with the time)")
			fs.StringVar(&f.cleanup, "cleanup", "", "remove the documents of the `RUN`, and do nothing else")
			fs.BoolVar(&f.observe, "observe", false, "write nothing: read the topic beside the indexer, and watch real changes")
			fs.DurationVar(&f.duration, "duration", time.Minute, "with --observe: how long changes are sampled")
			fs.BoolVar(&f.imports, "imports", false, "with --observe: watch what is imported too, which live changes go ahead of")
			f.evalFlags.declare(fs)
			return f.run
		},
	}
}

type freshnessFlags struct {
	evalFlags
	stream, probes     string
	rate               float64
	speed              string
	limit              int
	maxDuration        time.Duration
	questions, samples float64
	k                  int
	mode, generation   string
	patience           time.Duration
	slo                string
	seed               uint64
	name, cleanup      string
	observe, imports   bool
	duration           time.Duration
}

// freshnessTolerance is how much worse figures may be than a baseline's: times on a busy machine differ, what is wrong must not.
func freshnessTolerance() evals.Tolerance {
	t := evals.Tolerance{Figures: map[string]evals.Slack{}}
	for _, name := range []string{"time_to_searchable.", "deletes."} {
		for _, q := range []string{"p50", "p95", "p99", "max"} {
			t.Figures[name+q] = evals.Slack{Absolute: .05, Relative: .5}
		}
	}
	t.Figures["mean_age"] = evals.Slack{Absolute: .05, Relative: .5}
	t.Figures["fresh_share"] = evals.Slack{Absolute: .05}
	t.Figures["fresh_recall"] = evals.Slack{Absolute: .03}
	return t
}

// runName is what ids may begin with and a person may type.
var runName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (f *freshnessFlags) run(ctx context.Context, c *call) error {
	speed, err := f.check(c)
	if err != nil {
		return err
	}
	if f.cleanup != "" {
		return f.clean(ctx, c)
	}
	tolerance := freshnessTolerance()
	tolerance.Figures["fresh_recall@"+strconv.Itoa(f.k)] = tolerance.Figures["fresh_recall"]
	frame, err := f.begin(c, evals.KindFreshness, tolerance)
	if err != nil {
		return err
	}
	slo, err := parseSLO(f.slo, f.k)
	if err != nil {
		return err
	}
	if f.observe {
		return f.watch(ctx, c, frame, slo)
	}
	return f.replay(ctx, c, frame, slo, speed)
}

func (f *freshnessFlags) check(c *call) (speed float64, err error) {
	fail := func(format string, args ...any) (float64, error) {
		return 0, &usageError{detail: fmt.Sprintf(format, args...)}
	}
	if f.speed != "" {
		if speed, err = strconv.ParseFloat(strings.TrimSuffix(f.speed, "x"), 64); err != nil || !(speed > 0) {
			return fail("--speed %s: write it like 1000x", f.speed)
		}
	}
	switch {
	case len(c.Args) > 0:
		return fail("eval freshness takes no arguments: --stream names the changes")
	case f.cleanup != "" && (f.observe || f.probes != ""):
		return fail("--cleanup goes with --stream alone")
	case f.cleanup != "" && !runName.MatchString(f.cleanup):
		return fail("--cleanup %s is no name of a run", f.cleanup)
	case f.cleanup != "":
		return 0, nil
	case f.observe && (f.stream != "" || f.probes != ""):
		return fail("--observe writes nothing, so there is nothing to replay: leave out --stream and --probes")
	case f.observe && len(c.Config.Kafka.Brokers) == 0:
		return 0, &usageError{
			detail: "--observe reads the topic beside the indexer, so it needs --kafka: the log that is embedded in `liverag up` can't be read by another program",
			hint:   "replay a stream instead: --stream FILE",
		}
	case f.observe && f.duration <= 0:
		return fail("--duration is above 0")
	case !f.observe && f.stream == "":
		return 0, &usageError{detail: "eval freshness needs a --stream of changes to replay", hint: "with Kafka, --observe watches the changes that others make instead"}
	case !(f.rate > 0) || !(f.questions > 0) || f.samples < 0:
		return fail("--rate and --questions are above 0, --samples is not negative")
	case f.k < 1 || f.k > 200:
		return fail("--k must be from 1 to 200, not %d", f.k)
	case f.limit < 0 || f.maxDuration < 0 || f.patience < 0:
		return fail("--limit, --max-duration and --patience are not negative")
	case f.name != "" && !runName.MatchString(f.name):
		return fail("--run %s: a name has letters, digits, dots, dashes and underscores, at most 100", f.name)
	}
	return speed, nil
}

func (f *freshnessFlags) replay(ctx context.Context, c *call, frame *evalFrame, slo []evals.Gate, speed float64) error {
	input, err := openChanges(f.stream, f.limit, int(c.Config.Documents.MaxBytes))
	if err != nil {
		return err
	}
	var probes []evalfresh.Probe
	digest := input.digest
	if f.probes != "" {
		r, closeProbes, err := openLines(f.probes)
		if err != nil {
			return err
		}
		hash := sha256.New()
		probes, err = evalfresh.ReadProbes(io.TeeReader(r, hash), f.probes)
		closeProbes()
		if err != nil {
			return &usageError{detail: err.Error(), hint: `a probe is a line like {"text":"…","raw":"…","from_seq":12,"to_seq":96}`}
		}
		digest += hex.EncodeToString(hash.Sum(nil)[:8])
	}
	server := newFreshnessServer(c.client(ctx))
	if err := server.client.do(ctx, "GET", "/readyz", nil, nil, options{}); err != nil {
		return err
	}
	name := f.name
	if name == "" {
		var random [2]byte
		copy(random[:], hash64(server.client.base, strconv.FormatInt(frame.started.UnixNano(), 10), strconv.Itoa(os.Getpid())))
		name = "freshness-" + frame.started.UTC().Format("0102-150405") + "-" + hex.EncodeToString(random[:])
	}
	if c.Err.Watched {
		c.Err.Printf("%s\n", c.Err.dim("run "+name))
	}
	figures, err := evalfresh.Replay(ctx, evalfresh.ReplayConfig{
		Server: server, Run: name, Changes: input.changes, Total: input.total, Probes: probes,
		Rate: f.rate, Speed: speed, MaxDuration: f.maxDuration, Samples: f.samples, Questions: f.questions, K: f.k, Mode: f.mode, Generation: f.generation,
		Patience: f.patience, Seed: f.seed, Progress: freshnessProgress(c),
	})
	c.Err.clearStatus()
	if errors.Is(err, evalfresh.ErrLeft) {
		err = withHint(err, fmt.Sprintf("remove them with `liverag eval freshness --cleanup %s --stream %s`", name, f.stream))
	}
	if figures == nil {
		return err
	}
	r := &evals.Result{
		Set:      evals.Set{Name: filepath.Base(filepath.Dir(absolute(f.stream))) + "/" + filepath.Base(f.stream), Digest: digest},
		Settings: map[string]any{"run": name, "k": f.k, "questions": f.questions},
	}
	if speed > 0 {
		r.Settings["speed"] = speed
	} else {
		r.Settings["rate"] = f.rate
	}
	for setting, value := range map[string]string{"mode": f.mode, "generation": f.generation} {
		if value != "" {
			r.Settings[setting] = value
		}
	}
	if f.limit > 0 {
		r.Settings["limit"] = f.limit
	}
	return errors.Join(err, f.finish(frame, server, r, figures, nil, slo))
}

func hash64(parts ...string) []byte {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return sum[:8]
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// clean removes what a run left behind.
func (f *freshnessFlags) clean(ctx context.Context, c *call) error {
	var keys []string
	if f.stream != "" {
		input, err := openChanges(f.stream, f.limit, int(c.Config.Documents.MaxBytes))
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for change, err := range input.changes {
			if err != nil {
				return err
			}
			for _, op := range change.Ops {
				if !seen[op.Key] {
					seen[op.Key] = true
					keys = append(keys, op.Key)
				}
			}
		}
	}
	err := evalfresh.Remove(ctx, newFreshnessServer(c.client(ctx)), f.cleanup, keys, freshnessProgress(c))
	c.Err.clearStatus()
	if err != nil {
		return err
	}
	if c.JSON {
		return c.Out.JSON(map[string]any{"run": f.cleanup, "removed": true})
	}
	c.Out.Printf("no answer holds a document of %s any more\n", plain(f.cleanup))
	return nil
}

// freshnessProgress draws how far an eval is.
func freshnessProgress(c *call) func(evalfresh.Progress) {
	return func(p evalfresh.Progress) {
		text := p.Phase
		if p.Total > 0 {
			text = fmt.Sprintf("%3d %%  %s %s of %s", 100*p.Done/p.Total, text, spell.Thousands(p.Done), spell.Thousands(p.Total))
			if left := p.Total - p.Done; p.Done > 0 && left > 0 && p.Elapsed > time.Second && p.Phase != "checking" {
				text += ", " + short(time.Duration(float64(p.Elapsed)*float64(left)/float64(p.Done)).Round(time.Second)) + " to go"
			}
		}
		if p.Waiting > 0 {
			text += ", " + count(p.Waiting, "change") + " on the way"
		}
		c.Err.Status("%s", text)
	}
}

// changesInput is a stream that was looked through once.
type changesInput struct {
	changes iter.Seq2[evalfresh.Change, error]
	total   int
	digest  string
}

// openChanges counts a stream's changes, and reads it again as it is replayed: it may be larger than the memory.
func openChanges(file string, limit, maxBytes int) (*changesInput, error) {
	in := &changesInput{}
	hash := sha256.New()
	all := func(tee io.Writer) iter.Seq2[evalfresh.Change, error] {
		return func(yield func(evalfresh.Change, error) bool) {
			r, done, err := openLines(file)
			if err != nil {
				yield(evalfresh.Change{}, err)
				return
			}
			defer done()
			n := 0
			for c, err := range evalfresh.ReadChanges(io.TeeReader(r, tee), file, maxBytes) {
				if n++; limit > 0 && n > limit || !yield(c, err) {
					return
				}
			}
		}
	}
	for _, err := range all(hash) {
		if err != nil {
			var usage *usageError
			if !errors.As(err, &usage) {
				err = &usageError{detail: err.Error(), hint: "`liverag help eval freshness` shows how a stream is written"}
			}
			return nil, err
		}
		in.total++
	}
	if in.total == 0 {
		return nil, &usageError{detail: fmt.Sprintf("there are no changes in %s", file)}
	}
	in.digest = hex.EncodeToString(hash.Sum(nil)[:8]) + strconv.Itoa(in.total)
	in.changes = all(io.Discard)
	return in, nil
}

// openLines opens a file of lines, packed or not.
func openLines(file string) (r io.Reader, done func(), err error) {
	opened, err := os.Open(file)
	if err != nil {
		return nil, nil, &usageError{detail: fmt.Sprintf("can't read %s: %v", file, unwrapPath(err))}
	}
	buffered := bufio.NewReaderSize(opened, 1<<16)
	done = func() { opened.Close() }
	if magic, _ := buffered.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return buffered, done, nil
	}
	packed, err := gzip.NewReader(buffered)
	if err != nil {
		done()
		return nil, nil, &usageError{detail: fmt.Sprintf("can't read %s: %v", file, err)}
	}
	return packed, done, nil
}
