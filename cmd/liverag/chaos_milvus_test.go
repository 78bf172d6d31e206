package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sdk "github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/liverag/liverag/vectordb/milvus/milvustest"
)

// chronicle is what was written, and what of it was acknowledged as searchable. Every paragraph of a document names the document and its revision, so that each chunk that
// is shown tells where it is from.
type chronicle struct {
	mu     sync.Mutex
	texts  map[string][]string // by id: revision n is at n-1; empty: a deletion
	floors map[string]int      // by id: no older revision may be shown any more
	random *rand.Rand
}

// next makes a document's next revision: most are texts, longer and shorter ones, some are deletions.
func (l *chronicle) next(id string, mayDelete bool) (revision int, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	revision = len(l.texts[id]) + 1
	if !mayDelete || l.random.IntN(6) > 0 {
		text = prose(fmt.Sprintf("%s_r%d", id, revision), 1+l.random.IntN(12))
	}
	l.texts[id] = append(l.texts[id], text)
	return revision, text
}

// searchable notes that a revision can be found, and none before it any more.
func (l *chronicle) searchable(id string, revision int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floors[id] = max(l.floors[id], revision)
}

// newest returns each document's newest revision.
func (l *chronicle) newest() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int{}
	for id, texts := range l.texts {
		out[id] = len(texts)
	}
	return out
}

func (l *chronicle) floorsNow() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.floors)
}

// wrote returns the text of a revision.
func (l *chronicle) wrote(id string, revision int) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if revision < 1 || revision > len(l.texts[id]) {
		return "", false
	}
	return l.texts[id][revision-1], true
}

var fromRevision = regexp.MustCompile(`([a-z]/\d+)_r(\d+)`)

// judge tells what is wrong with a passage of a document that was shown: which revision it is of, and why it must not be.
func (l *chronicle) judge(id, passage string, start, end int, floors map[string]int) (revision int, wrong string) {
	for _, m := range fromRevision.FindAllStringSubmatch(passage, -1) {
		n, _ := strconv.Atoi(m[2])
		switch {
		case m[1] != id:
			return 0, "it is of " + m[1]
		case revision != 0 && n != revision:
			return 0, fmt.Sprintf("it is of revisions %d and %d", revision, n)
		}
		revision = n
	}
	text, ok := l.wrote(id, revision)
	switch {
	case !ok:
		return revision, "it is of no revision that was written"
	case start < 0 || end > len(text) || text[start:end] != passage:
		return revision, fmt.Sprintf("it is not what revision %d has there", revision)
	case revision < floors[id]:
		return revision, fmt.Sprintf("it is of revision %d after %d was searchable", revision, floors[id])
	}
	return revision, ""
}

// storm is a corpus under a steady stream of writes and deletes while its Milvus fails.
type storm struct {
	*cluster
	chronicle
	serving  []*program // the first takes the writes, and meets the faults; others may look past them
	indexing []*program
	report   []string

	failing          atomic.Pointer[string] // the fault of the moment, or the last
	answers, refused atomic.Int64
	watching         atomic.Bool // absence is a fault, too
	catching         atomic.Bool // somebody waits for the index to catch up: fewer writes come, so that a slow machine does
	stop             context.CancelFunc
	done             sync.WaitGroup
}

func newStorm(c *cluster) *storm {
	s := &storm{cluster: c}
	s.texts, s.floors, s.random = map[string][]string{}, map[string]int{}, rand.New(rand.NewPCG(7, uint64(time.Now().UnixNano())))
	s.watching.Store(true)
	s.failing.Store(new(string))
	return s
}

// begin starts the writers and readers.
func (s *storm) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.t.Cleanup(func() { cancel(); s.done.Wait() })
	s.done.Go(func() { s.write(ctx) })
	s.done.Go(func() { s.probe(ctx) })
	for _, p := range s.serving {
		s.done.Go(func() { s.read(ctx, p) })
	}
	admin := s.kafka()
	s.done.Go(func() { s.guardOffsets(ctx, admin) })
}

// end stops them.
func (s *storm) end() {
	s.stop()
	s.done.Wait()
	if s.answers.Load() == 0 {
		s.t.Error("nobody read")
	}
}

// write is a producer that never pauses for long and needs every write acknowledged: the log has no faults here.
func (s *storm) write(ctx context.Context) {
	p := s.serving[0]
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if s.catching.Load() && i%8 > 0 {
			continue
		}
		var lines bytes.Buffer
		encoder := json.NewEncoder(&lines)
		const n = 6
		for i := range n {
			s.mu.Lock()
			id := fmt.Sprintf("d/%d", s.random.IntN(150))
			s.mu.Unlock()
			line := map[string]any{"id": id}
			if _, text := s.next(id, true); text == "" {
				line["deleted"] = true
			} else {
				line["text"] = text
			}
			if err := encoder.Encode(line); err != nil {
				s.t.Errorf("line %d: %v", i, err)
			}
		}
		got, err := p.call("POST", "/documents", lines.Bytes())
		var took struct{ Accepted int }
		if err == nil {
			err = json.Unmarshal(got.body, &took)
		}
		if err != nil || got.status >= 300 || took.Accepted != n {
			s.t.Errorf("writes are not taken: %d %s, %v", got.status, got.body, err)
			return
		}
	}
}

// probe writes a few documents of its own, one after the other, and learns when each is searchable.
func (s *storm) probe(ctx context.Context) {
	p := s.serving[0]
	for i := 0; ctx.Err() == nil; i++ {
		// Those of even numbers are only ever replaced, so they are there at every moment.
		id := fmt.Sprintf("p/%d", i%6)
		revision, text := s.next(id, i%2 == 1)
		method, body := "PUT", any(map[string]any{"text": text})
		if text == "" {
			method, body = "DELETE", nil
		}
		got, err := p.call(method, documentPath(id)+"?wait=5s", body)
		var w written
		if err == nil {
			err = json.Unmarshal(got.body, &w)
		}
		if err != nil || got.status >= 300 {
			s.t.Errorf("%s %s: %d %s, %v", method, id, got.status, got.body, err)
			return
		}
		if w.Searchable != nil && *w.Searchable {
			s.searchable(id, revision)
		}
	}
}

// read asks, and holds every answer to what was written.
func (s *storm) read(ctx context.Context, p *program) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		<-tick.C
		floors := s.floorsNow()
		if i%3 == 2 {
			s.readWhole(p, fmt.Sprintf("p/%d", i/3%6), floors)
			continue
		}
		word := fmt.Sprintf("Paragraph %d speaks of p/%d and d/%d", i%12, i%6, i%150)
		got, err := p.call("POST", "/retrieve", map[string]any{"query": word, "k": 100})
		if ctx.Err() != nil || !s.answered(p, got, err, "POST /retrieve") {
			continue
		}
		var f found
		if err := json.Unmarshal(got.body, &f); err != nil {
			s.t.Errorf("%v in %s", err, got.body)
		}
		shown, versions := map[string]int{}, map[string]int64{}
		for _, h := range f.Hits {
			revision, wrong := s.judge(h.Document, h.Text, h.Start, h.End, floors)
			before, again := shown[h.Document]
			switch {
			case wrong != "":
				s.t.Errorf("a hit of %s with %.60q: %s", h.Document, h.Text, wrong)
			case again && (before != revision || versions[h.Document] != h.Version):
				s.t.Errorf("one answer shows %s at revisions %d and %d", h.Document, before, revision)
			}
			shown[h.Document], versions[h.Document] = revision, h.Version
		}
	}
}

// readWhole reads one document back.
func (s *storm) readWhole(p *program, id string, floors map[string]int) {
	got, err := p.call("GET", documentPath(id), nil)
	if err == nil && got.status == http.StatusNotFound && got.code() != "generation_unknown" {
		even := (id[len(id)-1]-'0')%2 == 0
		if text, _ := s.wrote(id, floors[id]); even && text != "" && s.watching.Load() {
			s.t.Errorf("%s is gone while one version replaces another (%s)", id, *s.failing.Load())
		}
		return
	}
	if !s.answered(p, got, err, "GET "+id) {
		return
	}
	var doc stored
	if err := json.Unmarshal(got.body, &doc); err != nil {
		s.t.Errorf("%v in %s", err, got.body)
		return
	}
	if _, wrong := s.judge(id, doc.Text, 0, len(doc.Text), floors); wrong != "" {
		s.t.Errorf("%s holds %.60q: %s", id, doc.Text, wrong)
	}
	for _, c := range doc.Chunks {
		if c.End > len(doc.Text) || doc.Text[c.Start:c.End] != c.Text {
			s.t.Errorf("%s: a chunk with %.60q is not of the text beside it", id, c.Text)
		}
	}
}

// answered counts an answer, and tells whether there is one. That the store does not answer has to be said as such.
func (s *storm) answered(p *program, got answered, err error, what string) bool {
	switch {
	case err != nil:
		select {
		case <-p.exited:
		default:
			s.t.Errorf("%s: %v", what, err)
		}
		return false
	case got.status == http.StatusServiceUnavailable && (got.code() == "store_unavailable" || got.code() == "not_ready"):
		s.refused.Add(1)
		return false
	case got.status != http.StatusOK:
		s.t.Errorf("%s answers %d %s", what, got.status, got.body)
		return false
	}
	s.answers.Add(1)
	return true
}

// kafka is a client of the log's own.
func (s *storm) kafka() *kadm.Client {
	s.t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.brokers, ",")...))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return kadm.NewClient(c)
}

// group is the consumer group of the live generation.
func (s *storm) group(ctx context.Context, admin *kadm.Client) string {
	list, err := admin.ListGroups(ctx)
	if err != nil {
		return ""
	}
	for _, g := range list.Groups() {
		if strings.HasPrefix(g, "liverag."+s.corpus+".") {
			return g
		}
	}
	return ""
}

// guardOffsets sees to it that no committed offset ever goes back.
func (s *storm) guardOffsets(ctx context.Context, admin *kadm.Client) {
	highest := map[string]int64{}
	for tick := time.NewTicker(200 * time.Millisecond); ctx.Err() == nil; {
		if group := s.group(ctx, admin); group != "" {
			if committed, err := admin.FetchOffsets(ctx, group); err == nil {
				committed.Each(func(o kadm.OffsetResponse) {
					at := fmt.Sprintf("%s/%d", group, o.Partition)
					if o.At < highest[at] {
						s.t.Errorf("the group's offset of partition %d went back from %d to %d", o.Partition, highest[at], o.At)
					}
					highest[at] = max(highest[at], o.At)
				})
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// members are the ids of the group's members: one that was thrown out and came back has another.
func (s *storm) members(admin *kadm.Client) []string {
	s.t.Helper()
	ctx := deadline(s.t)
	group := s.group(ctx, admin)
	described, err := admin.DescribeGroups(ctx, group)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, m := range described[group].Members {
		out = append(out, m.MemberID)
	}
	slices.Sort(out)
	return out
}

// indexed counts the documents that the indexing processes have made searchable since they were started.
func (s *storm) indexed() (n float64) {
	for _, p := range s.indexing {
		if got, err := p.call("GET", "/metrics", nil); err == nil {
			for _, family := range []string{"liverag_documents_indexed_total", "liverag_documents_deleted_total"} {
				n += sample(got.body, family)
			}
		}
	}
	return n
}

// sample adds up a family, 0 if it has no sample yet.
func sample(exposition []byte, family string) (sum float64) {
	for _, m := range regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(family)+`(?:\{[^}]*\})? (\S+)$`).FindAllSubmatch(exposition, -1) {
		v, _ := strconv.ParseFloat(string(m[1]), 64)
		sum += v
	}
	return sum
}

// memory is the resident size of a process in MiB, now and at its highest.
func memory(p *program) (now, highest int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	field := func(name string) int {
		m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(status)
		if m == nil {
			return 0
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n >> 10
	}
	return field("VmRSS"), field("VmHWM")
}

// caughtUp waits until everything written before the call is searchable through every process that serves, and from then on nothing older may be shown.
func (s *storm) caughtUp(within time.Duration) {
	s.t.Helper()
	s.catching.Store(true)
	defer s.catching.Store(false)
	newest := s.newest()
	for _, p := range s.serving {
		for end := time.Now().Add(within); ; {
			got, err := p.call("POST", "/retrieve", map[string]any{"query": "anything", "k": 1, "max_staleness": "0s", "wait": "5s", "strict": true})
			if err == nil && got.status == http.StatusOK {
				break
			}
			if err != nil || got.status != http.StatusServiceUnavailable {
				s.t.Fatalf("waiting for what was written: %d %s, %v", got.status, got.body, err)
			}
			if time.Now().After(end) {
				s.t.Fatalf("not searchable after %s: %s", within, got.body)
			}
		}
	}
	for id, revision := range newest {
		s.searchable(id, revision)
	}
}

// fault lets something fail for a while and heal, and holds the processes to what has to be true meanwhile and after it.
func (s *storm) fault(admin *kadm.Client, name string, held time.Duration, inject, heal func()) {
	s.t.Helper()
	before, members, began := s.indexed(), s.members(admin), time.Now()
	refused := s.refused.Load()
	s.failing.Store(&name)
	inject()
	s.lasts(held)
	during := s.indexed() - before
	heal()
	healed := time.Now()
	s.caughtUp(3 * time.Minute)
	took := time.Since(healed)
	if now := s.members(admin); !slices.Equal(now, members) && len(members) > 0 {
		s.t.Errorf("%s: the group's members were %q and are %q", name, members, now)
	}
	_, highest := memory(s.indexing[0])
	line := fmt.Sprintf("%-28s %5.1fs held, caught up %5.1fs after it; %4.0f/s indexed meanwhile, %4.0f/s until caught up; %3d questions refused; index at most %d MiB",
		name, healed.Sub(began).Seconds(), took.Seconds(), during/healed.Sub(began).Seconds(), (s.indexed()-before-during)/took.Seconds(), s.refused.Load()-refused, highest)
	s.report = append(s.report, line)
	s.t.Log(line)
}

// lasts is how long a fault does: nothing else tells that it has been there.
func (s *storm) lasts(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.t.Context().Done():
	}
}

// equalsChronicle compares everything that a process shows, and how much the server holds, with what was written last.
func (s *storm) equalsChronicle() {
	s.t.Helper()
	s.caughtUp(3 * time.Minute)
	newest := s.newest()
	alive := 0
	for id, revision := range newest {
		text, _ := s.wrote(id, revision)
		if text != "" {
			alive++
		}
		for _, p := range s.serving {
			if doc, there := p.get(id); there != (text != "") || doc.Text != text {
				s.t.Errorf("%s is there: %v, with %.60q; the last thing written is %.60q", id, there, doc.Text, text)
			}
		}
	}
	if got := s.counted()[s.serving[0].live().Name]; got != alive {
		s.t.Errorf("the server holds %d documents, want %d", got, alive)
	}
}

// direct is the server's own client, for what somebody else does to it.
func (s *storm) direct() sdk.Client {
	s.t.Helper()
	c, err := sdk.NewClient(deadline(s.t), sdk.Config{Address: s.milvus})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestChaosMilvus lets the way to a Milvus fail in every way there is, under a stream of writes and deletes, and some of what others may do to its collections happen.
// LIVERAG_CHAOS=5m makes it last: all faults come, again and again, for longer.
func TestChaosMilvus(t *testing.T) {
	t.Parallel()
	c := needCluster(t, "MILVUS_FULL", "full")
	s := newStorm(c)
	proxy := milvustest.NewProxy(t, c.milvus)
	faulty := *c
	faulty.milvus = proxy.Address()
	s.serving = []*program{faulty.start("serve"), c.start("serve")}
	s.indexing = []*program{faulty.start("index"), faulty.start("index")}
	s.begin()
	s.caughtUp(time.Minute)
	admin := s.kafka()
	until(t, "of two members", func() bool { return len(s.members(admin)) == 2 })
	s.fault(admin, "none", 3*time.Second, func() {}, func() {})

	collection := "liverag_" + c.corpus + "_" + s.serving[0].live().Name
	server := s.direct()
	refuse := func(err error, methods ...string) func() {
		return func() {
			proxy.Judge(func(method string) milvustest.Verdict {
				if len(methods) > 0 && !slices.Contains(methods, method) {
					return milvustest.Verdict{}
				}
				return milvustest.Verdict{Before: err}
			})
		}
	}
	busy := status.Error(codes.ResourceExhausted, "quota exceeded[reason=memory quota exceeded, please allocate more resources]")
	faults := []struct {
		name   string
		held   time.Duration
		inject func()
	}{
		{"cut", 3 * time.Second, proxy.Cut},
		{"stalled", 7 * time.Second, proxy.Stall},
		{"slow", 4 * time.Second, func() { proxy.Slow(30*time.Millisecond, 8<<10) }},
		{"reset in mid-call", time.Second, func() {
			for range 10 {
				proxy.Reset()
				s.lasts(100 * time.Millisecond)
			}
		}},
		{"connections forgotten", time.Second, proxy.Swallow},
		{"resource exhausted", 3 * time.Second, refuse(busy)},
		{"resource exhausted, writes", 3 * time.Second, refuse(busy, "Upsert", "Delete")},
		{"answers of writes lost", 2 * time.Second, func() {
			n := 0
			proxy.Judge(func(method string) milvustest.Verdict {
				if n++; (method == "Upsert" || method == "Delete") && n%2 == 0 {
					return milvustest.Verdict{After: milvustest.Lost}
				}
				return milvustest.Verdict{}
			})
		}},
		{"released", 2 * time.Second, func() {
			for range 3 {
				if err := server.ReleaseCollection(t.Context(), collection); err != nil {
					t.Error(err)
				}
			}
		}},
		{"alias dropped", time.Second, func() {
			if err := server.DropAlias(t.Context(), "liverag_"+c.corpus+"_live"); err != nil {
				t.Error(err)
			}
		}},
	}
	// At least four of them, others from one run to the next; LIVERAG_CHAOS_SEED=N repeats a choice.
	length, began := chaosLength(t), time.Now()
	order := seeded(t)
	for n := 0; n < 4 || time.Since(began) < length; {
		for _, i := range order.Perm(len(faults)) {
			if f := faults[i]; f.name != "alias dropped" || n < len(faults) {
				s.fault(admin, f.name, f.held*time.Duration(min(1+n/len(faults), 5)), f.inject, proxy.Pass)
			}
			if n++; n >= 4 && time.Since(began) >= length {
				break
			}
		}
	}

	// One that indexes dies when it has written new rows and not yet removed the old ones. It has a way of its own, so that it is its own rows that it leaves behind.
	way := milvustest.NewProxy(t, c.milvus)
	lonely := *c
	lonely.milvus = way.Address()
	s.indexing[0].stop()
	doomed := lonely.start("index")
	s.indexing[0] = doomed
	until(t, "of two members again", func() bool { return len(s.members(admin)) == 2 })
	died := make(chan struct{})
	var once sync.Once
	way.Judge(func(method string) milvustest.Verdict {
		if method != "Delete" {
			return milvustest.Verdict{}
		}
		once.Do(func() {
			doomed.kill()
			close(died)
		})
		return milvustest.Verdict{Before: milvustest.Lost}
	})
	select {
	case <-died:
	case <-time.After(patience):
		t.Fatal("it removes nothing")
	}
	s.indexing[0] = faulty.start("index")
	s.caughtUp(time.Minute)
	// Who takes its place looks for leftovers. A later edit of the same document has removed them already; that a sweep alone does, at every point of death, is a test of
	// vectordb/milvus.
	until(t, "swept", func() bool {
		got, err := s.indexing[0].call("GET", "/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		swept := sample(got.body, "liverag_sweeps_total") > 0
		if swept {
			t.Logf("%.0f rows left behind were swept", sample(got.body, "liverag_sweep_removed_total"))
		}
		return swept
	})
	s.end()
	s.equalsChronicle()

	// Somebody drops the collection: it is built again from the log.
	s.watching.Store(false)
	dropped := time.Now()
	if err := server.DropCollection(t.Context(), collection); err != nil {
		t.Fatal(err)
	}
	s.serving[0].must(nil, "PUT", "/documents/d/0", map[string]any{"text": s.another("d/0")})
	s.equalsChronicle()
	t.Logf("built again %.1fs after its collection was dropped", time.Since(dropped).Seconds())
	for _, p := range append(s.indexing, s.serving...) {
		now, highest := memory(p)
		t.Logf("%s: %d MiB, at most %d MiB", strings.Join(p.cmd.Args[1:2], " "), now, highest)
	}
}

// another is the next text of a document.
func (s *storm) another(id string) string {
	_, text := s.next(id, false)
	return text
}

// ownMilvus is a server that the test may do anything to.
type ownMilvus struct {
	t   *testing.T
	dir string
}

func (o ownMilvus) run(args ...string) string {
	o.t.Helper()
	script, err := filepath.Abs("../../.ci/milvus")
	if err != nil {
		o.t.Fatal(err)
	}
	c := exec.Command(script, args...)
	var trouble strings.Builder
	c.Stderr = &trouble
	out, err := c.Output()
	if err != nil {
		o.t.Fatalf("%s %q: %v\n%s", script, args, err, trouble.String())
	}
	return strings.TrimSpace(string(out))
}

func (o ownMilvus) start() string { return o.run("start", "full", o.dir) }
func (o ownMilvus) kill()         { o.run("kill9", o.dir) }

// signal sends a signal to the server, if it runs, and tells whether it did.
func (o ownMilvus) signal(sig syscall.Signal) bool {
	o.t.Helper()
	text, err := os.ReadFile(filepath.Join(o.dir, "pid"))
	if err != nil {
		o.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		o.t.Fatal(err)
	}
	return syscall.Kill(pid, sig) == nil
}

// TestChaosMilvusServer kills, restarts and freezes the server itself, which is the test's own.
func TestChaosMilvusServer(t *testing.T) {
	t.Parallel()
	c := needCluster(t, "MILVUS_FULL", "full")
	own := ownMilvus{t, t.TempDir()}
	t.Cleanup(func() { own.run("stop", own.dir) })
	shared := c.milvus
	c.milvus = own.start()
	s := newStorm(c)
	t.Cleanup(func() { c.milvus = shared }) // what is left of the corpus is looked for where there is a server
	s.serving = []*program{c.start("serve")}
	s.indexing = []*program{c.start("index"), c.start("index")}
	s.begin()
	s.caughtUp(time.Minute)
	admin := s.kafka()
	until(t, "of two members", func() bool { return len(s.members(admin)) == 2 })
	length, began := chaosLength(t), time.Now()
	for round := 0; round == 0 || time.Since(began) < length; round++ {
		s.fault(admin, "killed and started again", time.Second, own.kill, func() { own.start() })
		s.fault(admin, "frozen, then started again", 7*time.Second, func() { own.signal(syscall.SIGSTOP) }, func() {
			if !own.signal(syscall.SIGCONT) {
				t.Error("the server was gone while it was frozen")
			}
			// A full server that wakes up may find that its leases are over: it ends, at once or later, or goes on with a part that answers nothing any more. Whoever watches
			// it starts it again.
			s.lasts(3 * time.Second)
			own.kill()
			own.start()
		})
	}
	s.end()
	s.equalsChronicle()
	for _, p := range s.indexing {
		now, highest := memory(p)
		t.Logf("index: %d MiB, at most %d MiB", now, highest)
	}
}
