package indexer

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/ledger"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// Plan is what a replay will take, estimated from a sample of the live generation's documents.
type Plan struct {
	// Recipe has its defaults filled in.
	Recipe vectordb.Recipe `json:"recipe"`
	Extent
	Share float64 `json:"share,omitempty"`
	// Source is the generation whose documents were looked at.
	Source string `json:"source"`
	// Sampled is how many documents were cut, of how many that the replay will read.
	Sampled   PlanSample `json:"sampled"`
	Documents int64      `json:"documents"`
	Chunks    int64      `json:"chunks"`
	// ChunksEmbedded and the tokens are as GET /generations counts them; what other generations of the model, and the cache of vectors, have already is reused.
	ChunksEmbedded int64 `json:"chunks_embedded"`
	ChunksReused   int64 `json:"chunks_reused"`
	TokensEmbedded int64 `json:"tokens_embedded"`
	TokensReused   int64 `json:"tokens_reused"`
	// TokensBilled are the embedded chunks' in the model's own tokenizer, with the context that goes with each; where that is not known, 4 bytes a token.
	TokensBilled int64 `json:"tokens_billed"`
	// Requests to the model, at least; 0 where it takes none.
	Requests int64   `json:"requests"`
	CostUSD  float64 `json:"cost_usd"`
	// Takes is about how long, absent if that is not known; By says what decides it, and Bound in a word: the allowance of the model's provider, the day's cap, or the model, where it runs here;
	// empty where nothing has to be embedded, or nothing is known.
	Takes string    `json:"takes,omitempty"`
	By    string    `json:"takes_by"`
	Bound PlanBound `json:"bound_by,omitempty"`
	// Cap is what may be spent in a day, and what that makes of it; nil where nothing is capped that the replay takes.
	Cap *PlanCap `json:"cap,omitempty"`
	// Margin is how far off the totals may be with a probability of 95 %, as a share of each; 0 where every document was looked at.
	Margin PlanMargin `json:"margin"`
	// Notes say what the figures leave out.
	Notes []string `json:"notes"`
}

// PlanSample is what a plan is estimated from.
type PlanSample struct {
	Documents int64   `json:"documents"`
	Of        int64   `json:"of"`
	Share     float64 `json:"share"`
}

// PlanMargin is how far off a plan's totals may be.
type PlanMargin struct {
	Chunks         float64 `json:"chunks"`
	TokensEmbedded float64 `json:"tokens_embedded"`
	TokensBilled   float64 `json:"tokens_billed"`
}

// PlanBound is what decides how long a replay takes.
type PlanBound string

// What a plan may be bound by.
const (
	BoundByAllowance PlanBound = "allowance"
	BoundByCap       PlanBound = "cap"
	BoundByModel     PlanBound = "model"
)

// PlanCap is what a replay has to keep to besides the provider's allowance.
type PlanCap struct {
	// Daily is for a day (UTC), and Left is what is left of today's.
	Daily ledger.Limit `json:"daily"`
	Left  ledger.Limit `json:"left"`
	// Days is on how many days the replay embeds, today included, and Until the last of them, like 2026-11-24; absent where it would never come to an end.
	Days  int64  `json:"days,omitempty"`
	Until string `json:"until,omitempty"`
}

const (
	// planShare of the documents is looked at, but at least planLeast of them.
	planShare = .05
	planLeast = 500
	// planTimeout is how long it may take to read the documents.
	planTimeout = 20 * time.Second
	// planSpeed is about how long the model's speed is measured.
	planSpeed = 400 * time.Millisecond
	planPage  = 64
)

// ErrNothingLive: there is no live generation to estimate from.
var ErrNothingLive = errors.New("nothing is live yet")

// Plan tells what a replay will take, before it starts. Nothing is written, and nothing is sent to a model that costs something.
func (x *Indexer) Plan(ctx context.Context, r Replay) (*Plan, error) {
	if err := r.check(time.Now()); err != nil {
		return nil, err
	}
	if r.Name != "" {
		if err := checkName(r.Name); err != nil {
			return nil, err
		}
	}
	live := x.live.Load()
	if live == nil {
		return nil, ErrNothingLive
	}
	if _, err := live.usable(); err != nil {
		return nil, err
	}
	parts, err := x.build(ctx, r.Recipe, 0)
	if err != nil {
		return nil, err
	}
	e := &estimate{indexer: x, parts: parts, live: live, extent: r.Extent, cached: map[vectordb.Hash]bool{}, lender: x.lenderOf(nil, parts.Embedder.Name())}
	if err := e.read(ctx); err != nil {
		return nil, err
	}
	p := &Plan{Recipe: parts.Recipe, Extent: r.Extent, Share: r.Share, Source: live.name, Notes: e.notes()}
	e.fill(p)
	if err := e.time(ctx, p, cmp.Or(r.Share, 1)); err != nil {
		return nil, err
	}
	return p, nil
}

// estimate is a plan in the making.
type estimate struct {
	indexer *Indexer
	parts   Parts
	live    *generation
	extent  Extent
	lender  *lender

	all      int64 // documents that the replay will read
	measured []planned
	cached   map[vectordb.Hash]bool // inputs that a document before has brought into the cache
	inputs   []string               // some of those that will be embedded
	cutting  time.Duration
	late     bool // not every document was read
}

// planned is what was found of one document.
type planned struct {
	chunks, embedded, tokens, tokensEmbedded, billed, inputs float64
}

// read goes through the live generation's documents and looks at some of them.
func (e *estimate) read(ctx context.Context) error {
	x := e.indexer
	stats, err := x.config.Store.Stats(ctx, e.live.name)
	if err != nil {
		return fmt.Errorf("count the documents of %s: %w", e.live.name, err)
	}
	// The documents are few or many; a share by hash is the same ones every time.
	share := max(planShare, planLeast/max(1, float64(stats.Documents)*cmp.Or(e.extent.Sample, 1)))
	within, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	after, seen := "", 0
	for {
		page, err := x.config.Store.Scan(within, e.live.name, after, planPage)
		if within.Err() != nil && ctx.Err() == nil {
			e.late = true
			break
		}
		if err != nil {
			return fmt.Errorf("read the documents of %s: %w", e.live.name, err)
		}
		if len(page) == 0 {
			break
		}
		after = page[len(page)-1].Key
		for i := range page {
			rev := &page[i]
			if rev.Version == 0 || rev.Deleted {
				continue
			}
			seen++
			if !e.extent.samples(rev.Key) || rev.LoggedAt.Before(e.extent.From) {
				continue
			}
			e.all++
			// By other bits than a generation's own sample takes.
			if planHash(rev.Key) >= share {
				continue
			}
			if err := e.look(within, rev); err != nil {
				if within.Err() != nil && ctx.Err() == nil {
					e.late = true
					break
				}
				return err
			}
		}
		if e.late {
			break
		}
	}
	if e.late && seen > 0 {
		e.all = int64(float64(e.all) * max(1, float64(stats.Documents)/float64(seen)))
	}
	return nil
}

// planHash is a document's place from 0 to 1.
func planHash(key string) float64 {
	sum := sha256.Sum256([]byte("plan\x00" + key))
	var h uint64
	for _, b := range sum[:7] {
		h = h<<8 | uint64(b)
	}
	return float64(h) / (1 << 56)
}

// look cuts one document, and asks what of it would be embedded.
func (e *estimate) look(ctx context.Context, rev *vectordb.Revision) error {
	other := vectordb.Revision{}
	if e.lender != nil {
		if e.lender.generation == e.live.name {
			other = *rev
		} else if lent, err := e.indexer.config.Store.Current(ctx, e.lender.generation, []string{rev.Key}); err == nil {
			other = lent[0]
		}
	}
	begun := time.Now()
	as := rev.ContentType
	if as == stream.TextHTML {
		as = stream.TextMarkdown // it is stored converted
	}
	chunks, err := e.parts.Chunker.Split(ctx, as, rev.Text)
	if failed := (*chunker.Error)(nil); errors.As(err, &failed) && !failed.Temporary {
		e.measured = append(e.measured, planned{}) // it will be a dead letter
		return nil
	}
	if err != nil {
		return fmt.Errorf("cut %s: %w", rev.Key, err)
	}
	lent := make(map[vectordb.Hash]bool, len(other.Entries))
	for i := range other.Entries {
		lent[other.Entries[i].Hash] = true
	}
	var texts []string
	tokens, hashes := map[string]int{}, map[string]vectordb.Hash{}
	found := planned{chunks: float64(len(chunks))}
	for _, chunk := range chunks {
		text := chunk.Input(rev.Text)
		sum := sha256.Sum256([]byte(text))
		found.tokens += float64(chunk.Tokens)
		hash := vectordb.Hash(sum[:16])
		if lent[hash] || embedder.Blank(text) || e.cached[hash] {
			continue
		}
		if _, twice := tokens[text]; !twice {
			texts = append(texts, text)
		}
		tokens[text], hashes[text] = chunk.Tokens, hash
	}
	e.cutting += time.Since(begun)
	if len(texts) > 0 {
		usage, err := embedder.Foresee(ctx, e.parts.Embedder, embedder.Index, texts)
		if err != nil {
			return fmt.Errorf("look %s up: %w", rev.Key, err)
		}
		for _, text := range texts {
			if usage.Sent(text) {
				if embedder.HasCache(e.parts.Embedder) {
					// The next document that says the same finds it there.
					e.cached[hashes[text]] = true
				}
				found.embedded++
				found.tokensEmbedded += float64(tokens[text])
				if len(e.inputs) < planInputs {
					e.inputs = append(e.inputs, text)
				}
			}
		}
		found.billed, found.inputs = float64(usage.Tokens()), float64(usage.Inputs())
	}
	e.measured = append(e.measured, found)
	return nil
}

// planInputs is how many inputs are kept to measure the model's speed with.
const planInputs = 256

// notes say what the figures leave out.
func (e *estimate) notes() []string {
	notes := []string{}
	if _, lag := e.live.progress.lag(); lag > 0 {
		notes = append(notes, fmt.Sprintf("%s is %d changes behind the log; what they bring is not in the figures", e.live.name, lag))
	}
	if e.late {
		notes = append(notes, fmt.Sprintf("not every document could be read within %s: those with the lowest ids stand for all", planTimeout))
	}
	if e.indexer.config.Observe {
		notes = append(notes, "what the indexing processes have in their caches of vectors is not known here, and counts as embedded")
	}
	return notes
}

// fill projects the sample onto all documents.
func (e *estimate) fill(p *Plan) {
	n := float64(len(e.measured))
	p.Documents = e.all
	p.Sampled = PlanSample{Documents: int64(n), Of: e.all}
	if n == 0 || e.all == 0 {
		return
	}
	p.Sampled.Share = n / float64(e.all)
	total := func(of func(planned) float64) (sum int64, margin float64) {
		mean, square := 0.0, 0.0
		for _, m := range e.measured {
			mean += of(m) / n
		}
		for _, m := range e.measured {
			square += (of(m) - mean) * (of(m) - mean)
		}
		if mean > 0 && n > 1 {
			left := max(0, 1-n/float64(e.all))
			margin = 1.96 * math.Sqrt(square/(n-1)/n*left) / mean
		}
		return int64(math.Round(mean * float64(e.all))), math.Round(margin*1e4) / 1e4
	}
	p.Chunks, p.Margin.Chunks = total(func(m planned) float64 { return m.chunks })
	p.ChunksEmbedded, _ = total(func(m planned) float64 { return m.embedded })
	p.ChunksReused = p.Chunks - p.ChunksEmbedded
	p.TokensEmbedded, p.Margin.TokensEmbedded = total(func(m planned) float64 { return m.tokensEmbedded })
	all, _ := total(func(m planned) float64 { return m.tokens })
	p.TokensReused = all - p.TokensEmbedded
	p.TokensBilled, p.Margin.TokensBilled = total(func(m planned) float64 { return m.billed })
	inputs, _ := total(func(m planned) float64 { return m.inputs })
	if b := embedder.BatcherOf(e.parts.Embedder); b != nil {
		p.Requests = b.Requests(inputs, p.TokensBilled)
	}
	p.CostUSD = e.parts.cost(p.TokensBilled)
}

// time tells how long it will take, by what the provider allows or else by how fast the model is here.
func (e *estimate) time(ctx context.Context, p *Plan, share float64) error {
	cutting := 0.0
	if n := len(e.measured); n > 0 {
		cutting = e.cutting.Seconds() / float64(n) * float64(e.all) / float64(runtime.GOMAXPROCS(0))
	}
	allowed := e.parts.provider()
	model := 0.0
	switch {
	case p.ChunksEmbedded == 0:
		p.By = "cutting and writing: nothing has to be embedded"
	case allowed.TPM > 0 || allowed.RPM > 0:
		p.By, p.Bound = "the provider's limit", BoundByAllowance
		if allowed.TPM > 0 {
			model = float64(p.TokensBilled) / float64(allowed.TPM) * 60
		}
		if allowed.RPM > 0 {
			model = max(model, float64(p.Requests)/float64(allowed.RPM)*60)
		}
	case !e.parts.Here:
		p.By = "not known: " + planUnknown
		e.capped(p, 0)
		return nil
	default:
		rate, err := e.speed(ctx)
		if err != nil {
			return fmt.Errorf("measure the model's speed: %w", err)
		}
		p.By, p.Bound = fmt.Sprintf("the model's speed here, %.0f chunks a second just now", rate), BoundByModel
		model = float64(p.ChunksEmbedded) / rate
	}
	if takes, known := e.capped(p, time.Duration((cutting+model/share)*float64(time.Second))); known {
		p.Takes = planTime(takes)
	}
	return nil
}

// planUnknown is what to do where a provider's limits are not known.
const planUnknown = "the settings openai.tpm and openai.rpm say what the provider allows"

// planTime spells how long something takes.
func planTime(takes time.Duration) string {
	if takes > time.Minute {
		return takes.Round(time.Second).String()
	}
	return takes.Round(time.Millisecond).String()
}

// capped tells what the day's cap makes of a replay that would take so long alone, 0 if that is not known, and how long it takes then, if that is known.
func (e *estimate) capped(p *Plan, alone time.Duration) (takes time.Duration, known bool) {
	account := e.indexer.config.Account
	if account == nil || e.parts.Here || p.ChunksEmbedded == 0 {
		return alone, true
	}
	c := account.Cap(p.Recipe.Embedder.Model)
	if c == (ledger.Cap{}) {
		return alone, true
	}
	p.Cap = &PlanCap{}
	p.Cap.Daily, p.Cap.Left = c.Limits()
	if c.Unpriced {
		p.Bound = BoundByCap
		p.By = fmt.Sprintf("the daily cap of %v: nobody said what %s costs, so no document is embedded by it; add it to the setting prices, 0 if it costs nothing, and restart", c.Daily.Cost, p.Recipe.Embedder.Model)
		return 0, false
	}
	p.Notes = append(p.Notes, "what live changes and questions take of the daily cap is not in the days")
	if e.indexer.config.Observe {
		p.Notes = append(p.Notes, "what the indexing processes have spent today is not known here; each keeps to a cap of its own")
	}
	want := ledger.Amount{Tokens: p.TokensBilled, Cost: ledger.Dollars(p.CostUSD)}
	takes, days, binds := c.Spread(want, alone, time.Now())
	if p.Cap.Days = days; days > 0 {
		p.Cap.Until = c.Ends.AddDate(0, 0, int(days-2)).Format(time.DateOnly)
	}
	if !binds {
		return takes, true
	}
	p.Bound = BoundByCap
	cap := "the daily cap of " + c.Least(want).Cost.String()
	if tokens := c.Least(want).Tokens; tokens > 0 {
		cap = fmt.Sprintf("the daily cap of %d tokens", tokens)
	}
	if alone == 0 {
		p.By = cap + ", and what the provider allows, which is not known: " + planUnknown
		return 0, false
	}
	p.By = fmt.Sprintf("%s; without it %s, by %s", cap, planTime(alone), p.By)
	return takes, days > 0
}

// speed measures how many inputs a second the model embeds here, without what a cache has. It is asked on the replays' lane.
func (e *estimate) speed(ctx context.Context) (float64, error) {
	model := e.parts.Embedder
	if b := embedder.BatcherOf(model); b != nil {
		model = b // below the cache
	}
	ctx = embedder.WithLane(ctx, embedder.Replay)
	begun, done := time.Now(), 0
	// The first inputs bring the weights into memory.
	for size := 2; done == 0 || time.Since(begun) < planSpeed && len(e.inputs) > 0; size = min(2*size, 64) {
		batch := e.inputs[:min(size, len(e.inputs))]
		e.inputs = e.inputs[len(batch):]
		if _, err := model.Embed(ctx, embedder.Index, batch); err != nil {
			return 0, err
		}
		if size == 2 && len(e.inputs) > 0 {
			begun = time.Now()
			continue
		}
		done += len(batch)
	}
	return float64(done) / max(time.Since(begun).Seconds(), 1e-6), nil
}

func (x *Indexer) planGeneration(c echo.Context) error {
	request, err := readCreate(c)
	if err != nil {
		return err
	}
	plan, err := x.Plan(c.Request().Context(), request)
	if err != nil {
		return asProblem(err)
	}
	return c.JSON(http.StatusOK, plan)
}
