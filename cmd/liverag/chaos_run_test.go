package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/stream"
)

// chaosPartitions is how many partitions the topic of a chaos has.
const chaosPartitions = 6

// member is a process of the chaos, whoever runs as it at the moment.
type member struct {
	name, verb, data string
	args             []string

	mu      sync.Mutex
	program *program // nil while it is dead
}

func (m *member) running() *program {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.program
}

func (m *member) set(p *program) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.program = p
}

// chaos is a corpus under a stream of changes, the processes that index it and those that answer, and what was seen of them.
type chaos struct {
	t        *testing.T
	random   *rand.Rand
	brokers  *brokers
	corpus   string
	history  history
	client   *kgo.Client
	indexing []*member
	asked    []*member
	grouped  bool // those who index share the work, and keep their offsets in a consumer group

	probes   []string // a key for each partition
	steady   []string // another one
	written  atomic.Int64
	aborted  atomic.Int64
	answers  atomic.Int64
	refused  atomic.Int64 // answers that said to come back
	mu       sync.Mutex
	shown    map[string]string // what hits showed, by key, version and span
	faults   map[string][]time.Duration
	watching sync.WaitGroup
	stop     context.CancelFunc
}

const (
	sessionOver = 13 * time.Second // longer than a silent member keeps its partitions
	steadyText  = "Steadymark %d stands here for ever, in its version %d."
	abortedText = "Abortedmark: nobody ever committed this."
)

// newChaos prepares the topic; the caller adds members and starts them.
func newChaos(t *testing.T, b *brokers, h history, random *rand.Rand, name string) *chaos {
	t.Helper()
	c := &chaos{t: t, random: random, brokers: b, history: h, corpus: fmt.Sprintf("chaos_%s_%d", name, time.Now().UnixNano()),
		probes: keysOf("probe/", chaosPartitions), steady: keysOf("steady/", chaosPartitions),
		shown: map[string]string{}, faults: map[string][]time.Duration{}}
	b.topics(c.corpus, chaosPartitions)
	c.client = b.client()
	t.Cleanup(c.client.Close)
	return c
}

// start starts or restarts a member and waits until it serves.
func (c *chaos) start(m *member) {
	c.t.Helper()
	m.set(startVerb(c.t, m.verb, m.data, append([]string{"--kafka", c.brokers.addresses, "--corpus", c.corpus, "--embedder", "hash/384"}, m.args...)...))
}

// launch is start for a member that may not be able to serve.
func (c *chaos) launch(m *member) {
	c.t.Helper()
	p := launchVerb(c.t, m.verb, m.data, append([]string{"--kafka", c.brokers.addresses, "--corpus", c.corpus, "--embedder", "hash/384"}, m.args...)...)
	until(c.t, m.name+" listening", func() bool {
		var said struct {
			URL string `json:"url"`
		}
		_ = json.Unmarshal([]byte(p.out.String()), &said)
		p.base = said.URL
		return p.base != ""
	})
	m.set(p)
}

// watch begins everything that goes on beside the faults: the stream, what never commits, the readers, and who looks after the offsets.
func (c *chaos) watch(rate int) {
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.t.Cleanup(func() { cancel(); c.watching.Wait() })
	for _, each := range []func(context.Context, *rand.Rand){
		func(ctx context.Context, r *rand.Rand) { c.produce(ctx, r, rate) },
		c.produceSteady, c.abort,
	} {
		r := rand.New(rand.NewPCG(c.random.Uint64(), 1))
		c.watching.Go(func() { each(ctx, r) })
	}
	for _, m := range c.asked {
		r := rand.New(rand.NewPCG(c.random.Uint64(), 2))
		c.watching.Go(func() { c.ask(ctx, m, r) })
		if !c.grouped {
			c.watching.Go(func() { c.followApplied(ctx, m) })
		}
	}
	if c.grouped {
		c.watching.Go(func() { c.followCommitted(ctx) })
	}
}

// send gives a record to the client; it must become durable in the end.
func (c *chaos) send(r *kgo.Record) {
	c.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err != nil {
			c.t.Errorf("the record of %s was not written: %v", r.Key, err)
		}
		c.written.Add(1)
	})
}

// produce writes the history over and over, each burst at full speed, so many records a second on average.
func (c *chaos) produce(ctx context.Context, random *rand.Rand, rate int) {
	began := time.Now()
	for i := 0; ; {
		for range 1 + random.IntN(4*rate) {
			c.send(c.history.records[i%len(c.history.records)].record(c.corpus))
			i++
		}
		due := began.Add(time.Duration(float64(i) / float64(rate) * float64(time.Second)))
		if sleep(ctx, time.Until(due)) != nil {
			return
		}
	}
}

// produceSteady changes documents that are never deleted, so that each answer about them has to name all of them.
func (c *chaos) produceSteady(ctx context.Context, _ *rand.Rand) {
	for i := 0; ctx.Err() == nil; i++ {
		n := i % len(c.steady)
		value, _ := json.Marshal(map[string]any{"text": fmt.Sprintf(steadyText, n, i), "metadata": map[string]any{"kind": "steady"}})
		c.send(&kgo.Record{Topic: c.corpus, Key: []byte(c.steady[n]), Value: value})
		_ = sleep(ctx, 50*time.Millisecond)
	}
}

// abort writes in transactions, and aborts most of them.
func (c *chaos) abort(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		// A transaction that met a dying node may leave its client of no use; the next one of that name fences it.
		client := c.brokers.client(kgo.TransactionalID(c.corpus), kgo.TransactionTimeout(5*time.Second))
		for ctx.Err() == nil && c.transaction(client, random) == nil {
			_ = sleep(ctx, time.Duration(100+random.IntN(300))*time.Millisecond)
		}
		client.Close()
	}
}

func (c *chaos) transaction(client *kgo.Client, random *rand.Rand) error {
	within, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	commit := random.IntN(4) == 0
	text := abortedText
	if commit {
		text = "Committed in a transaction."
	}
	for i := range 1 + random.IntN(12) {
		key := fmt.Sprintf("transaction/%d", random.IntN(30))
		if i%2 == 0 { // a document that others write too
			key = c.history.records[random.IntN(len(c.history.records))].key
		}
		record := historical{key, documentOf(text)}.record(c.corpus)
		if random.IntN(5) == 0 && !commit {
			record.Value = nil
		}
		client.Produce(within, record, nil)
	}
	if err := client.Flush(within); err != nil {
		return err
	}
	if err := client.EndTransaction(within, kgo.TransactionEndTry(commit)); err != nil {
		return err
	}
	if !commit {
		c.aborted.Add(1)
	}
	return nil
}

// retrieve asks a member; ok is false where it is dead, stalled or says to come back.
func (c *chaos) retrieve(m *member, request map[string]any) (f found, ok bool) {
	p := m.running()
	if p == nil {
		return f, false
	}
	got, err := p.call("POST", "/retrieve", request)
	switch {
	case err != nil:
		return f, false
	case got.status == http.StatusServiceUnavailable:
		c.refused.Add(1)
		return f, false
	case got.status != http.StatusOK:
		c.t.Errorf("%s answers %d %s", m.name, got.status, got.body)
		return f, false
	}
	if err := json.Unmarshal(got.body, &f); err != nil {
		c.t.Errorf("%s: %v in %s", m.name, err, got.body)
		return f, false
	}
	c.answers.Add(1)
	return f, true
}

// note holds an answer to one version a document, and keeps what it showed.
func (c *chaos) note(m *member, f *found) {
	versions := map[string]int64{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range f.Hits {
		if v, ok := versions[h.Document]; ok && v != h.Version {
			c.t.Errorf("%s shows %s in the versions %d and %d in one answer", m.name, h.Document, v, h.Version)
		}
		versions[h.Document] = h.Version
		key := fmt.Sprintf("%s\x00%d\x00%d\x00%d", h.Document, h.Version, h.Start, h.End)
		if old, ok := c.shown[key]; ok && old != h.Text {
			c.t.Errorf("%s shows %q of %s where %q was shown before", m.name, h.Text, h.Document, old)
		}
		c.shown[key] = h.Text
	}
}

// ask goes on asking a member.
func (c *chaos) ask(ctx context.Context, m *member, random *rand.Rand) {
	newest := map[string]int64{} // of the steady documents
	for n := 0; ctx.Err() == nil; n++ {
		if n%3 > 0 {
			if f, ok := c.retrieve(m, map[string]any{"query": c.history.sentences[random.IntN(len(c.history.sentences))], "k": 50}); ok {
				c.note(m, &f)
			}
		} else if f, ok := c.retrieve(m, map[string]any{"query": "steadymark", "k": 50, "filter": map[string]any{"kind": "steady"}}); ok {
			c.note(m, &f)
			for _, h := range f.Hits {
				if h.Version < newest[h.Document] {
					c.t.Errorf("%s shows %s in version %d after %d", m.name, h.Document, h.Version, newest[h.Document])
				}
				newest[h.Document] = h.Version
			}
			if shows := len(unique(f.documents())); len(newest) == len(c.steady) && shows != len(c.steady) {
				c.t.Errorf("%s shows %d of the %d steady documents: %q", m.name, shows, len(c.steady), f.documents())
			}
		}
		_ = sleep(ctx, 40*time.Millisecond)
	}
}

// followApplied holds a full copy to never go back, not by a restart either.
func (c *chaos) followApplied(ctx context.Context, m *member) {
	highest := map[int32]int64{}
	for ; ctx.Err() == nil; _ = sleep(ctx, 100*time.Millisecond) {
		p := m.running()
		if p == nil {
			continue
		}
		got, err := p.call("GET", "/freshness", nil)
		var f struct {
			Partitions []struct {
				Partition int32 `json:"partition"`
				Applied   int64 `json:"applied_offset"`
			} `json:"partitions"`
		}
		if err != nil || got.status != http.StatusOK || json.Unmarshal(got.body, &f) != nil {
			continue
		}
		for _, at := range f.Partitions {
			if at.Applied < highest[at.Partition] {
				c.t.Errorf("%s went back in partition %d from %d to %d", m.name, at.Partition, highest[at.Partition], at.Applied)
			}
			highest[at.Partition] = max(highest[at.Partition], at.Applied)
		}
	}
}

// followCommitted holds the group to never go back.
func (c *chaos) followCommitted(ctx context.Context) {
	client := c.brokers.client()
	defer client.Close()
	highest := map[string]int64{}
	looks := 0
	for ; ctx.Err() == nil; _ = sleep(ctx, 100*time.Millisecond) {
		offsets, err := c.brokers.offsetsOf(ctx, client, c.corpus)
		if err != nil {
			continue
		}
		looks++
		for at, offset := range offsets {
			if offset < highest[at] {
				c.t.Errorf("the offset of %s was rewound from %d to %d", at, highest[at], offset)
			}
			highest[at] = max(highest[at], offset)
		}
	}
	if len(highest) != chaosPartitions {
		c.t.Errorf("%d looks saw the offsets of %d partitions", looks, len(highest))
	}
}

// probe writes one document to each partition, and returns once all are durable: their versions, by key.
func (c *chaos) probe(round string) map[string]int64 {
	c.t.Helper()
	records := make([]*kgo.Record, len(c.probes))
	for i, key := range c.probes {
		value, _ := json.Marshal(map[string]any{"text": fmt.Sprintf("Probe %d of %s.", i, round), "metadata": map[string]any{"kind": "probe"}})
		records[i] = &kgo.Record{Topic: c.corpus, Key: []byte(key), Value: value}
	}
	if err := c.client.ProduceSync(deadline(c.t), records...).FirstErr(); err != nil {
		c.t.Fatalf("the probes of %s: %v", round, err)
	}
	versions := map[string]int64{}
	for _, r := range records {
		versions[string(r.Key)] = stream.Version(0, r.Offset)
	}
	return versions
}

// visible waits until the members find the probes.
func (c *chaos) visible(versions map[string]int64, members ...*member) {
	c.t.Helper()
	for _, m := range members {
		last := ""
		for end := time.Now().Add(2 * patience); ; time.Sleep(10 * time.Millisecond) {
			f, ok := c.retrieve(m, map[string]any{"query": "probe", "k": 50, "filter": map[string]any{"kind": "probe"}})
			there := 0
			for _, h := range f.Hits {
				if h.Version >= versions[h.Document] {
					there++
				}
			}
			if there == len(versions) {
				break
			}
			last = fmt.Sprintf("%d of %d", there, len(versions))
			if !ok {
				last = "no answer, and so none of its"
			}
			if time.Now().After(end) {
				c.t.Fatalf("%s finds %s probes after %s\n%s", m.name, last, 2*patience, c.state())
			}
		}
	}
}

// state is where everybody is, for whoever has to find out why a chaos failed.
func (c *chaos) state() string {
	var b strings.Builder
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if groups, err := kadm.NewClient(c.client).DescribeGroups(ctx); err == nil {
		for _, g := range groups.Sorted() {
			if strings.Contains(g.Group, c.corpus) {
				fmt.Fprintf(&b, "group %s is %s:", g.Group, g.State)
				for _, m := range g.Members {
					assigned, _ := m.Assigned.AsConsumer()
					fmt.Fprintf(&b, " %s has %v;", m.MemberID, assigned)
				}
				b.WriteString("\n")
			}
		}
	}
	if offsets, err := c.brokers.offsetsOf(ctx, c.client, c.corpus); err == nil {
		fmt.Fprintf(&b, "committed %v\n", offsets)
	}
	for _, m := range slices.Concat(c.indexing, c.asked) {
		if p := m.running(); p != nil {
			for _, path := range []string{"/freshness", "/generations"} {
				got, err := p.call("GET", path, nil)
				fmt.Fprintf(&b, "%s %s: %d %s %v\n", m.name, path, got.status, got.body, err)
			}
		}
	}
	return b.String()
}

// recovered takes down how long a fault was felt.
func (c *chaos) recovered(kind string, since time.Time) {
	took := time.Since(since)
	c.mu.Lock()
	c.faults[kind] = append(c.faults[kind], took)
	c.mu.Unlock()
	c.t.Logf("%s %-24s searchable again after %s", time.Now().Format("15:04:05"), kind, took.Round(10*time.Millisecond))
}

// affected is who has to show that an indexer is back: who answers for all of them, or itself.
func (c *chaos) affected(m *member) []*member {
	if c.grouped {
		return c.asked
	}
	return []*member{m}
}

// killIndexer kills a process and starts it again.
func (c *chaos) killIndexer() {
	m := c.indexing[c.random.IntN(len(c.indexing))]
	p := m.running()
	m.set(nil)
	p.kill()
	began := time.Now()
	c.t.Logf("%s %s is killed", began.Format("15:04:05"), m.name)
	versions := c.probe(fmt.Sprint("a kill at ", began.UnixNano()))
	c.start(m)
	c.visible(versions, c.affected(m)...)
	c.recovered("indexer killed", began)
}

// killBroker kills a node and starts it again once the others have taken over.
func (c *chaos) killBroker() {
	node := fmt.Sprint(1 + c.random.IntN(c.brokers.nodes))
	c.brokers.script("kill", node)
	began := time.Now()
	c.t.Logf("%s node %s is killed", began.Format("15:04:05"), node)
	c.visible(c.probe(fmt.Sprint("a node's kill at ", began.UnixNano())), c.asked...)
	c.recovered("broker killed", began)
	c.brokers.script("restart", node)
	c.brokers.inSync(c.client)
}

// stall stops a process for longer than its session, and wakes it.
func (c *chaos) stall() {
	m := c.indexing[c.random.IntN(len(c.indexing))]
	p := m.running()
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	began := time.Now()
	c.t.Logf("%s %s is stalled", began.Format("15:04:05"), m.name)
	versions := c.probe(fmt.Sprint("a stall at ", began.UnixNano()))
	if c.grouped {
		c.visible(versions, c.asked...)
		c.recovered("indexer stalled", began)
	}
	time.Sleep(time.Until(began.Add(sessionOver)))
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	woken := time.Now()
	c.visible(c.probe(fmt.Sprint("a waking at ", woken.UnixNano())), c.affected(m)...)
	c.recovered("stalled indexer woken", woken)
}

// rage lets faults of every kind happen, one at a time, for so long, and at least each of them once.
func (c *chaos) rage(length time.Duration) {
	c.t.Helper()
	kinds := []func(){c.killIndexer, c.killBroker, c.stall}
	end := time.Now().Add(length)
	for first := true; first || time.Now().Before(end); first = false {
		c.random.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		for _, fault := range kinds {
			if first || time.Now().Before(end) {
				fault()
				time.Sleep(time.Duration(c.random.IntN(1500)) * time.Millisecond)
			}
		}
	}
}

// settle ends the stream and waits until everything of it is searchable everywhere.
func (c *chaos) settle() {
	c.t.Helper()
	c.stop()
	c.watching.Wait()
	if err := c.client.Flush(deadline(c.t)); err != nil {
		c.t.Fatal(err)
	}
	began := time.Now()
	for _, m := range c.asked {
		for end := time.Now().Add(6 * patience); ; {
			f, ok := c.retrieve(m, map[string]any{"query": "anything", "k": 1, "max_staleness": "0s", "wait": "5s"})
			if ok && f.Freshness.Satisfied {
				break
			}
			if time.Now().After(end) {
				c.t.Fatalf("%s is not at the end of the log: %+v", m.name, f.Freshness)
			}
		}
	}
	c.t.Logf("everything is searchable %s after the end of the stream", time.Since(began).Round(10*time.Millisecond))
}

// foldOf is what the index should hold: the newest record of each key.
func foldOf(log map[string][]logged) map[string]logged {
	fold := map[string]logged{}
	for key, all := range log {
		fold[key] = all[len(all)-1]
	}
	return fold
}

// textOf is the text of a record's document.
func textOf(t testing.TB, value []byte) (text, contentType string) {
	t.Helper()
	var document struct {
		Text        string `json:"text"`
		ContentType string `json:"content_type"`
	}
	if err := json.Unmarshal(value, &document); err != nil {
		t.Fatal(err)
	}
	if document.ContentType == "" {
		document.ContentType = stream.TextPlain
	}
	return document.Text, document.ContentType
}

// compare holds every process that answers to the fold of the log, and every answer that was given to a version that was written.
func (c *chaos) compare() {
	c.t.Helper()
	log := c.brokers.read(c.corpus, kgo.ReadCommitted())
	fold := foldOf(log)
	for _, m := range c.asked {
		c.holds(m, fold)
	}
	for key, shown := range c.shown {
		parts := strings.Split(key, "\x00")
		var version int64
		var start, end int
		_, _ = fmt.Sscan(parts[1], &version)
		_, _ = fmt.Sscan(parts[2], &start)
		_, _ = fmt.Sscan(parts[3], &end)
		at := slices.IndexFunc(log[parts[0]], func(l logged) bool { return stream.Version(0, l.offset) == version })
		if at < 0 || log[parts[0]][at].value == nil {
			c.t.Errorf("version %d of %s was shown, %.60q, and never written", version, parts[0], shown)
			continue
		}
		if text, _ := textOf(c.t, log[parts[0]][at].value); end > len(text) || text[start:end] != shown {
			c.t.Errorf("version %d of %s was shown as %.60q, which is not what it holds from %d to %d", version, parts[0], shown, start, end)
		}
	}
	records, withheld, live := 0, 0, 0
	for _, all := range log {
		records += len(all)
	}
	for _, all := range c.brokers.read(c.corpus, kgo.ReadUncommitted()) {
		for _, l := range all {
			if strings.Contains(string(l.value), abortedText) {
				withheld++
			}
		}
	}
	for _, l := range fold {
		if l.value != nil {
			live++
		}
	}
	if withheld == 0 || c.aborted.Load() == 0 {
		c.t.Errorf("%d aborted transactions left %d records: nothing was tried", c.aborted.Load(), withheld)
	}
	c.t.Logf("%d records of %d keys, %d live documents; %d records of %d aborted transactions; %d answers with %d different hits, %d refused with 503",
		records, len(log), live, withheld, c.aborted.Load(), c.answers.Load(), len(c.shown), c.refused.Load())
	for _, kind := range []string{"indexer killed", "broker killed", "indexer stalled", "stalled indexer woken"} {
		if all := c.faults[kind]; len(all) > 0 {
			c.t.Logf("%-24s %s", kind, quantiles(all))
		}
	}
}

// holds compares a process with a fold: each document's version, text and chunks, and that there is no other.
func (c *chaos) holds(m *member, fold map[string]logged) {
	c.t.Helper()
	p := m.running()
	cut, err := chunker.New(chunker.Options{Strategy: "markdown", Tokens: 200, Tokenizer: chunker.CL100K})
	if err != nil {
		c.t.Fatal(err)
	}
	live := 0
	for key, l := range fold {
		doc, there := p.get(key)
		if there != (l.value != nil) {
			c.t.Errorf("%s: %s is there: %v, and the log has deleted it: %v", m.name, key, there, l.value == nil)
		}
		if !there || l.value == nil {
			continue
		}
		live++
		text, contentType := textOf(c.t, l.value)
		if offset := (doc.Version & (1<<40 - 1)) - 1; doc.Text != text || offset != l.offset {
			c.t.Errorf("%s: %s holds version %d, %.60q, and the log says offset %d of partition %d, %.60q", m.name, key, doc.Version, doc.Text, l.offset, l.partition, text)
			continue
		}
		want, err := cut.Split(context.Background(), contentType, text)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(want) != len(doc.Chunks) {
			c.t.Errorf("%s: %s has %d chunks, want %d", m.name, key, len(doc.Chunks), len(want))
			continue
		}
		for i, chunk := range doc.Chunks {
			if chunk.Start != want[i].Start || chunk.End != want[i].End || chunk.Text != text[want[i].Start:want[i].End] {
				c.t.Errorf("%s: chunk %d of %s is %d to %d, want %d to %d", m.name, i, key, chunk.Start, chunk.End, want[i].Start, want[i].End)
			}
		}
	}
	var v verified
	r := runs(c.t, "", "verify", "--server", p.base, "--rate", "0", "--json")
	if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.code != 0 || !v.Right || v.wrong() != 0 || v.DeadLettered != 0 || v.Documents != int64(live) {
		c.t.Errorf("%s: verify exits with %d, %v\n%s%s", m.name, r.code, errors.Join(err), r.out, r.err)
	}
	until(c.t, m.name+" counted", func() bool { return p.live().Progress.Documents == int64(live) })
}

// grow writes documents while partitions are added to their topic, and returns the newest record of each key, in the order in which they were written.
func (c *chaos) grow(partitions int) map[string]logged {
	c.t.Helper()
	fold := map[string]logged{}
	write := func(records []historical) {
		all := make([]*kgo.Record, len(records))
		for i, h := range records {
			all[i] = h.record(c.corpus)
		}
		if err := c.client.ProduceSync(deadline(c.t), all...).FirstErr(); err != nil {
			c.t.Fatal(err)
		}
		for _, r := range all {
			fold[string(r.Key)] = logged{r.Partition, r.Offset, r.Value}
		}
	}
	// The last word on a document of two partitions may be on either side, and a deletion too.
	moving := func(i int) string { return fmt.Sprint("moving/", i) }
	var before, after []historical
	for version := range 4 {
		for i := range 60 {
			before = append(before, historical{moving(i), documentOf(fmt.Sprintf("Version %d of %d.", version, i))})
		}
	}
	for i := range 40 {
		if i%2 == 0 {
			after = append(after, historical{moving(i), nil})
		} else {
			after = append(after, historical{moving(i), documentOf(fmt.Sprintf("The last version of %d.", i))})
		}
	}
	const part = 150
	write(before)
	write(c.history.records[:part])
	if _, err := kadm.NewClient(c.client).UpdatePartitions(deadline(c.t), partitions, c.corpus); err != nil {
		c.t.Fatal(err)
	}
	spreads := func() bool { // the client knows of the new partitions
		leader, _, err := c.client.PartitionLeader(c.corpus, int32(partitions-1))
		return err == nil && leader >= 0
	}
	for i := 1; i < 6; i++ {
		write(c.history.records[i*part : (i+1)*part])
		if spreads() {
			write(after)
			after = nil
		}
	}
	until(c.t, "spreading over the new partitions", spreads)
	write(after)
	between := 0
	old := kgo.StickyKeyPartitioner(nil).ForTopic("")
	for key, l := range fold {
		if int32(old.Partition(&kgo.Record{Key: []byte(key)}, chaosPartitions)) != l.partition {
			between++
		}
	}
	if between < 20 {
		c.t.Fatalf("%d documents went on in another partition: nothing was tried", between)
	}
	return fold
}

// wayOut does what the message of a generation says that lost its log.
func (c *chaos) wayOut() {
	c.t.Helper()
	old := ""
	for _, m := range c.indexing {
		p := m.running()
		var g generation
		until(c.t, m.name+" stopped", func() bool { g = p.live(); return g.State == "failed" })
		for _, way := range []string{"restart liverag", "replay into a new generation", "promote it", "drop this one"} {
			if g.Trouble == nil || !strings.Contains(g.Trouble.Detail, way) {
				c.t.Errorf("%s does not say %q: %+v", m.name, way, g.Trouble)
			}
		}
		old = g.Name
	}
	for _, m := range c.asked {
		if f, ok := c.retrieve(m, map[string]any{"query": "version"}); ok && f.Freshness.Satisfied {
			c.t.Errorf("%s goes on answering from %s as if nothing were wrong: %+v", m.name, old, f.Freshness)
		}
	}
	members := slices.Compact(slices.Concat(c.asked, c.indexing))
	for _, m := range members {
		m.running().stop()
	}
	for _, m := range members {
		c.launch(m) // without an index it serves nobody, but can be told what to do
	}
	p := c.asked[0].running()
	p.replay("anew", map[string]any{})
	p.must(nil, "POST", "/generations/anew/promote", nil)
	p.must(nil, "DELETE", "/generations/"+old, nil)
	for _, m := range c.asked {
		until(c.t, m.name+" at the new generation", func() bool { return m.running().live().Name == "anew" })
		m.running().applied()
	}
}
