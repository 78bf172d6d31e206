package embedder_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
)

// wild is a model that fails in every way, until it is tamed.
type wild struct {
	*embedder.Hash
	check func()

	mu      sync.Mutex
	r       *rand.Rand
	tame    bool
	liar    bool // what it reports is garbage
	failing int  // out of a hundred requests
	taken   int  // in flight
}

func (w *wild) float(ordinary float64) float64 {
	switch w.r.IntN(12) {
	case 0:
		return math.NaN()
	case 1:
		return math.Inf(1 - 2*w.r.IntN(2))
	case 2:
		return -ordinary
	case 3:
		return 1e300
	case 4:
		return 1e-9
	case 5:
		return 0
	}
	return ordinary * w.r.Float64() * 2
}

func (w *wild) duration(ordinary time.Duration) time.Duration {
	switch w.r.IntN(12) {
	case 0:
		return -ordinary
	case 1:
		return 365 * 24 * time.Hour
	case 2:
		return math.MaxInt64
	case 3:
		return math.MinInt64
	case 4:
		return 0
	}
	return time.Duration(w.r.Float64() * 2 * float64(ordinary))
}

func (w *wild) told(ordinary float64) embedder.Told {
	if w.r.IntN(3) == 0 {
		return embedder.Told{}
	}
	return embedder.Told{Limit: w.float(ordinary), Per: w.duration(time.Minute), State: w.r.IntN(2) == 0, Left: w.float(ordinary / 2), Reset: w.duration(time.Minute)}
}

func (w *wild) report(inputs []string) embedder.Report {
	if !w.liar {
		return embedder.Report{}
	}
	r := embedder.Report{Requests: w.told(600), Tokens: w.told(60_000)}
	if w.r.IntN(2) == 0 {
		r.Charged = int(w.duration(time.Duration(10 * len(inputs))))
	}
	if w.r.IntN(4) == 0 {
		r.Calls = int(w.duration(3))
	}
	return r
}

// EmbedReported fails, or does not.
func (w *wild) EmbedReported(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, embedder.Report, error) {
	w.check()
	w.mu.Lock()
	report, kind := w.report(inputs), -1
	if !w.tame && w.r.IntN(100) < w.failing {
		kind = w.r.IntN(13)
	}
	if w.tame {
		report = embedder.Report{}
	}
	latency, after, at, named := time.Duration(w.r.IntN(200))*time.Millisecond, w.duration(5*time.Second), w.r.IntN(len(inputs)+2)-1, w.r.IntN(2) == 0
	w.taken++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.taken--
		w.mu.Unlock()
	}()
	fail := func(e embedder.Error) ([][]float32, embedder.Report, error) {
		e.Op, e.Err = "wild", errors.New("it is wild")
		return nil, report, fmt.Errorf("wrapped: %w", &e)
	}
	if kind == 0 {
		latency = 2 * time.Minute // which is for as long as such a client has patience
	}
	select {
	case <-time.After(latency):
	case <-ctx.Done():
		return nil, report, ctx.Err()
	}
	for i, input := range inputs {
		switch {
		case strings.Contains(input, "poison"):
			blamed := -1
			if named {
				blamed = i
			}
			return fail(embedder.Error{Input: blamed})
		case strings.Contains(input, "sick"):
			return fail(embedder.Error{Temporary: true, Input: -1})
		}
	}
	vectors, err := w.Hash.Embed(ctx, role, inputs)
	if err != nil {
		return nil, report, err
	}
	switch kind {
	case 0:
		return fail(embedder.Error{Temporary: true, Input: -1})
	case 1:
		return fail(embedder.Error{Temporary: true, Throttled: true, Input: -1})
	case 2:
		return fail(embedder.Error{Temporary: true, Throttled: true, RetryAfter: after, Input: at})
	case 3, 4:
		return fail(embedder.Error{Temporary: true, Input: -1})
	case 5:
		return fail(embedder.Error{Temporary: true, RetryAfter: after, Input: at})
	case 6:
		return fail(embedder.Error{Account: true, Input: -1})
	case 7:
		return fail(embedder.Error{Input: at})
	case 8:
		return nil, report, context.DeadlineExceeded
	case 9:
		return nil, report, errors.New("something else")
	case 10:
		vectors = vectors[:len(vectors)-1]
	case 11:
		vectors[0][0] = float32(math.NaN())
	case 12:
		vectors = append(vectors, vectors[0])
	}
	return vectors, report, nil
}

func (w *wild) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	vectors, _, err := w.EmbedReported(ctx, role, inputs)
	return vectors, err
}

// moody is a purse that refuses and grants as it likes, until it is open.
type moody struct {
	mu    sync.Mutex
	r     *rand.Rand
	open  bool
	taken int64
	wrong string
}

func (m *moody) Take(_ embedder.Role, tokens int64) (time.Time, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if tokens < 0 {
		m.wrong += fmt.Sprintf("%d tokens taken, ", tokens)
	}
	if !m.open && m.r.IntN(4) == 0 {
		// Also now, or long ago.
		return time.Now().Add(time.Duration(m.r.IntN(5)-2) * time.Second), "not now"
	}
	m.taken += tokens
	return time.Time{}, ""
}

func (m *moody) Settle(_ embedder.Role, taken, charged int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken -= taken
	if charged < 0 || taken < 0 || m.taken < 0 {
		m.wrong += fmt.Sprintf("%d taken, %d charged, %d left, ", taken, charged, m.taken)
	}
}

// TestSchedulerEndsEveryCall: whatever providers, purses and callers do, every call ends with its own vectors or an error, the books balance at all times, and nothing
// is left over. LIVERAG_SEEDS is how many times that is tried.
func TestSchedulerEndsEveryCall(t *testing.T) {
	seeds := 40
	if n, err := strconv.Atoi(os.Getenv("LIVERAG_SEEDS")); err == nil {
		seeds = n
	}
	first, _ := strconv.Atoi(os.Getenv("LIVERAG_SEED"))
	for seed := first; seed < first+seeds && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) { scramble(t, uint64(seed)) })
	}
}

func scramble(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	var b *embedder.Batcher
	var once sync.Once
	check := func() {
		if wrong := b.Mistakes(); wrong != "" {
			once.Do(func() { t.Errorf("seed %d: %s", seed, wrong) })
		}
	}
	makeWild := func() *wild {
		return &wild{
			Hash: embedder.NewHash(64), check: check, r: rand.New(rand.NewPCG(seed, r.Uint64())), liar: r.IntN(2) == 0, failing: r.IntN(101),
		}
	}
	models := []*wild{makeWild()}
	limits := func() embedder.Limits {
		if r.IntN(2) == 0 {
			return embedder.Limits{}
		}
		return embedder.Limits{RPM: r.IntN(2) * (60 + r.IntN(3000)), TPM: r.IntN(2) * (100 + r.IntN(1_000_000)), Burst: time.Duration(r.IntN(3)) * time.Second}
	}
	cfg := embedder.BatchConfig{
		Concurrency: 1 + r.IntN(4), MaxInputs: 1 + r.IntN(20), MaxTokens: r.IntN(2) * (1 + r.IntN(100)), Reserve: r.IntN(4) - 1,
		Linger: time.Duration(r.IntN(3)) * 10 * time.Millisecond, Limits: limits(),
	}
	if r.IntN(4) == 0 {
		cfg.Patience = time.Duration(r.IntN(20)-2) * time.Second
	}
	purse := &moody{r: rand.New(rand.NewPCG(seed, r.Uint64()))}
	if r.IntN(2) == 0 {
		cfg.Purse = purse
	}
	for range r.IntN(3) {
		w := makeWild()
		models = append(models, w)
		cfg.Failover = append(cfg.Failover, embedder.Endpoint{Name: fmt.Sprint("other ", len(models)), Model: w, Concurrency: r.IntN(3), Limits: limits()})
	}
	b = embedder.Batch(models[0], cfg)
	shares := []*embedder.Share{nil, nil, embedder.NewShare(.5), embedder.NewShare(.2)}
	bad := r.IntN(3) // what texts may be
	root, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	for range 12 {
		r := rand.New(rand.NewPCG(seed, r.Uint64()))
		all.Go(func() {
			for range 8 {
				time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond * time.Duration(r.IntN(20)))
				texts := inputs(fmt.Sprint("text ", r.IntN(30)), r.IntN(30))
				spoilt := false
				for i := range texts {
					switch n := r.IntN(200); {
					case n == 0:
						texts[i] = " "
					case n == 1 && bad > 0:
						texts[i], spoilt = fmt.Sprint("poison ", r.IntN(5)), true
					case n == 2 && bad > 1:
						texts[i], spoilt = fmt.Sprint("sick ", r.IntN(5)), true
					}
				}
				ctx := embedder.WithShare(embedder.WithLane(root, embedder.Lane(r.IntN(3))), shares[r.IntN(len(shares))])
				ctx = embedder.WithUsage(ctx, &embedder.Usage{})
				cancel := func() {}
				switch r.IntN(4) {
				case 0:
					ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(3000))*time.Millisecond)
				case 1:
					ctx, cancel = context.WithTimeout(ctx, 10*time.Minute)
				}
				vectors, err := b.Embed(ctx, embedder.Role(r.IntN(2)), texts)
				switch {
				case err != nil && vectors != nil:
					t.Errorf("seed %d: vectors and %v", seed, err)
				case err != nil:
					if i, _ := blame(err); i >= len(texts) || i >= 0 && strings.TrimSpace(texts[i]) == "" {
						t.Errorf("seed %d: input %d of %d is blamed: %v", seed, i, len(texts), err)
					}
				case spoilt:
					t.Errorf("seed %d: %q got through", seed, texts)
				default:
					want, _ := embedder.NewHash(64).Embed(context.Background(), embedder.Index, texts)
					for i := range texts {
						if !slices.Equal(want[i], vectors[i]) {
							t.Errorf("seed %d: input %d has another's vector", seed, i)
						}
					}
				}
				cancel()
				check()
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		all.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Minute):
	}
	// From now on all is well.
	purse.mu.Lock()
	purse.open = true
	purse.mu.Unlock()
	for _, m := range models {
		m.mu.Lock()
		m.tame = true
		m.mu.Unlock()
	}
	healed := time.Now()
	select {
	case <-ended:
	case <-time.After(6 * time.Hour):
		t.Errorf("seed %d: %v after all was well, calls go on: %+v", seed, time.Since(healed), b.Providers())
		stop()
		<-ended
	}
	time.Sleep(time.Hour) // rests and requests that nobody waits for end
	synctest.Wait()
	check()
	if left := b.Leftovers(); left != "" {
		t.Errorf("seed %d: the idle batcher still counts %s", seed, left)
	}
	for _, m := range models {
		if m.taken != 0 {
			t.Errorf("seed %d: %d requests are still under way", seed, m.taken)
		}
	}
	if purse.wrong != "" || purse.taken != 0 {
		t.Errorf("seed %d: the purse has %d set apart: %s", seed, purse.taken, purse.wrong)
	}
	if _, err := b.Embed(t.Context(), embedder.Index, []string{"afterwards"}); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
}
