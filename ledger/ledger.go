// Package ledger keeps account of what embedding takes: tokens, requests and money, by day (UTC), model and generation, for longer than a process lives.
// It also keeps to what may be spent in a day.
//
// There are two accounts. The work of a generation is what its pipeline tells (Add): what was embedded for it, what it had already. The charges of a model are what its
// provider took for documents and for questions (Purse), generations together, requests that served nobody included. A day's money is the charges'.
package ledger

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/embedder"
)

// DaysKept is how many days are told apart. What is older is kept as one sum a generation.
const DaysKept = 400

// maxRows bounds the account where very many generations are made: above it the oldest days tell them apart no longer.
const maxRows = 20_000

// flushEvery is how often what has changed is written.
const flushEvery = time.Second

// Config is what a Ledger works with.
type Config struct {
	// Dir is where the account is kept; it is made if need be. Empty: it is kept in memory only.
	Dir string
	// Daily is what may be spent in a day, on documents. Questions count, and are never refused. Defaults to no cap.
	Daily Amount
	// Prices are US dollars a million tokens, by model. A model without one costs nothing, except that documents are not embedded by it while Daily.Cost is capped.
	Prices map[string]float64
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Amount is tokens, and what they cost. As a cap, 0 is none.
type Amount struct {
	Tokens int64
	Cost   USD
}

func (a Amount) plus(b Amount) Amount  { return Amount{a.Tokens + b.Tokens, a.Cost + b.Cost} }
func (a Amount) minus(b Amount) Amount { return Amount{a.Tokens - b.Tokens, a.Cost - b.Cost} }

// USD is money, in billionths of a US dollar: whole numbers, so that a sum of many is exact.
type USD int64

// Dollars makes money out of US dollars.
func Dollars(v float64) USD {
	return USD(math.Round(max(-math.MaxInt64/4, min(v*1e9, math.MaxInt64/4))))
}

// Dollars is the amount in US dollars.
func (u USD) Dollars() float64 { return float64(u) / 1e9 }

// String spells it with as many places as it needs: $5.00, $0.0002.
func (u USD) String() string {
	v := u.Dollars()
	if u == 0 || math.Abs(v) >= .01 {
		return fmt.Sprintf("$%.2f", v)
	}
	return "$" + strings.TrimRight(strconv.FormatFloat(v, 'f', min(9, 1-int(math.Floor(math.Log10(math.Abs(v))))), 64), "0")
}

// MarshalJSON writes it in US dollars, exactly.
func (u USD) MarshalJSON() ([]byte, error) {
	sign, v := "", uint64(u)
	if u < 0 {
		sign, v = "-", -v
	}
	text := fmt.Sprintf("%s%d.%09d", sign, v/1e9, v%1e9)
	return []byte(strings.TrimSuffix(strings.TrimRight(text, "0"), ".")), nil
}

// UnmarshalJSON reads US dollars.
func (u *USD) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(string(b), 64)
	*u = Dollars(v)
	return err
}

// Cost is what tokens cost at a price in US dollars a million.
func Cost(tokens int64, price float64) USD { return Dollars(float64(tokens) * price / 1e6) }

// Figures are sums. The first ones are of a generation's work, Requests and TokensRetried of a model's charges, TokensBilled and Cost of both.
type Figures struct {
	ChunksEmbedded int64 `json:"chunks_embedded,omitempty"`
	ChunksReused   int64 `json:"chunks_reused,omitempty"`
	// TokensEmbedded were sent to the model, TokensReused were not because their vectors were known; both in the chunker's tokenizer.
	TokensEmbedded int64 `json:"tokens_embedded,omitempty"`
	TokensReused   int64 `json:"tokens_reused,omitempty"`
	// Superseded are changes that a newer one overtook before they were embedded, and TokensSuperseded what that saved, as far as they were cut already.
	Superseded       int64 `json:"superseded,omitempty"`
	TokensSuperseded int64 `json:"tokens_superseded,omitempty"`
	DeadLetters      int64 `json:"dead_letters,omitempty"`
	// Requests were sent; TokensRetried were in those of them that brought nothing.
	Requests      int64 `json:"requests,omitempty"`
	TokensRetried int64 `json:"tokens_retried,omitempty"`
	// TokensBilled are those that cost, by the provider's own count where it tells, else by the model's tokenizer.
	TokensBilled int64 `json:"tokens_billed,omitempty"`
	// Cost is TokensBilled at the price of the time when they were.
	Cost USD `json:"cost_usd,omitempty"`
}

// Plus is the sum.
func (f Figures) Plus(g Figures) Figures {
	f.ChunksEmbedded += g.ChunksEmbedded
	f.ChunksReused += g.ChunksReused
	f.TokensEmbedded += g.TokensEmbedded
	f.TokensReused += g.TokensReused
	f.Superseded += g.Superseded
	f.TokensSuperseded += g.TokensSuperseded
	f.DeadLetters += g.DeadLetters
	f.Requests += g.Requests
	f.TokensRetried += g.TokensRetried
	f.TokensBilled += g.TokensBilled
	f.Cost += g.Cost
	return f
}

// Minus is the difference.
func (f Figures) Minus(g Figures) Figures {
	f.ChunksEmbedded -= g.ChunksEmbedded
	f.ChunksReused -= g.ChunksReused
	f.TokensEmbedded -= g.TokensEmbedded
	f.TokensReused -= g.TokensReused
	f.Superseded -= g.Superseded
	f.TokensSuperseded -= g.TokensSuperseded
	f.DeadLetters -= g.DeadLetters
	f.Requests -= g.Requests
	f.TokensRetried -= g.TokensRetried
	f.TokensBilled -= g.TokensBilled
	f.Cost -= g.Cost
	return f
}

// day is a date in UTC, 2026-11-21; empty: any before those that are told apart. They order like strings.
type day string

func dayOf(t time.Time) day { return day(t.UTC().Format(time.DateOnly)) }

// end is the midnight at which it ends.
func (d day) end() time.Time { return d.add(1) }

func (d day) add(days int) time.Time {
	t, _ := time.Parse(time.DateOnly, string(d)) // checked when it was made
	return t.AddDate(0, 0, days)
}

// account is whose figures they are: a generation's (Generation is set), or a model's charges on one side.
type account struct {
	Model      string `json:"model"`
	Generation string `json:"generation,omitempty"`
	// ID tells generations apart that had one name.
	ID   string `json:"id,omitempty"`
	Side string `json:"side,omitempty"`
}

type row struct {
	Day day `json:"day"`
	account
}

// made is a generation, whatever its model was.
type made struct{ name, id string }

// Ledger is the account. It is safe for concurrent use.
type Ledger struct {
	config Config

	mu      sync.Mutex
	rows    map[row]Figures
	totals  map[made]Figures    // of each generation
	since   map[account]Figures // since this process started
	changed map[row]bool        // not written yet
	newest  day                 // that anything was counted for, or this process has seen
	spent   Amount              // on newest
	taken   Amount              // set apart, and not settled yet
	refused refusal
	warned  day           // it was said that day
	wake    chan struct{} // something changed

	file file
}

// Open reads the account that is kept in the directory. That never fails: embedding does not stop because nobody can count it. What can't be read is left out, and while
// nothing can be written, or another process writes there, figures are kept in memory, with a warning.
func Open(config Config) *Ledger {
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	l := &Ledger{
		config: config,
		rows:   map[row]Figures{}, totals: map[made]Figures{}, since: map[account]Figures{}, changed: map[row]bool{},
		wake: make(chan struct{}, 1),
	}
	l.file.open(l)
	now := time.Now()
	for r := range l.rows {
		l.newest = max(l.newest, r.Day)
	}
	if ahead := l.newest; ahead > dayOf(now.AddDate(0, 0, 1)) {
		config.Logger.Warn("spending is counted for a day to come, so the clock was wrong then, or is now: until that day is over, all that is spent counts for it; if the clock was wrong then, stop liverag and remove that day's lines from the file",
			"day", ahead, "file", l.file.path)
	}
	for r, f := range l.rows {
		l.total(r.account, f)
		l.spend(r, f)
	}
	l.mu.Lock()
	l.turn(now)
	l.mu.Unlock()
	return l
}

// Run writes what changes until ctx ends.
func (l *Ledger) Run(ctx context.Context) error {
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return nil
		}
		l.file.flush(l)
		select { // what changes in a second is written at once
		case <-time.After(flushEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

// Close writes what has changed since, and lets another process write.
func (l *Ledger) Close() error {
	l.file.flush(l)
	return l.file.close()
}

// Add tells of a generation's work; id tells it from others that had its name. The charges of its model are counted apart.
func (l *Ledger) Add(name, id, model string, f Figures) {
	if f == (Figures{}) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(account{Model: model, Generation: name, ID: id}, f)
}

// Of is the work of a generation so far, before this process too.
func (l *Ledger) Of(name, id string) Figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.totals[made{name, id}]
}

// Price is what a million tokens of the model cost, in US dollars; 0: nothing, or not known.
func (l *Ledger) Price(model string) float64 { return l.config.Prices[model] }

// add needs mu.
func (l *Ledger) add(a account, f Figures) {
	l.turn(time.Now())
	r := row{l.newest, a}
	l.rows[r] = l.rows[r].Plus(f)
	l.since[a] = l.since[a].Plus(f)
	l.total(a, f)
	l.spend(r, f)
	l.touch(r)
}

func (l *Ledger) total(a account, f Figures) {
	if a.Generation != "" {
		of := made{a.Generation, a.ID}
		l.totals[of] = l.totals[of].Plus(f)
	}
}

func (l *Ledger) spend(r row, f Figures) {
	if r.Day == l.newest && r.Generation == "" {
		l.spent = l.spent.plus(Amount{f.TokensBilled, f.Cost})
	}
}

func (l *Ledger) touch(r row) {
	l.changed[r] = true
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// turn begins a new day when there is one. The day never goes back: a clock that does would give a day's money once more.
func (l *Ledger) turn(now time.Time) {
	today := dayOf(now)
	if today <= l.newest {
		return
	}
	if l.refused.why != "" {
		l.config.Logger.Info("a new day has begun, and embedding goes on", "day", today)
	}
	l.newest, l.spent, l.refused = today, Amount{}, refusal{}
	l.fold()
}

// fold gives up distinctions of long ago.
func (l *Ledger) fold() {
	oldest := dayOf(l.newest.add(1 - DaysKept))
	for _, r := range l.sorted() {
		switch {
		case r.Day == "":
		case r.Day < oldest:
			l.move(r, row{"", r.account})
		case len(l.rows) > maxRows && r.Day < l.newest && r.Generation != "":
			l.move(r, row{r.Day, account{Model: r.Model, Generation: others}})
		}
	}
	for _, r := range l.sorted() {
		if len(l.rows) <= maxRows || r.Day != "" {
			return
		}
		if r.Generation != "" {
			l.move(r, row{"", account{Model: r.Model, Generation: others}})
		}
	}
}

// others are generations that are not told apart any more. No generation has such a name.
const others = "(others)"

func (l *Ledger) move(from, to row) {
	if from == to {
		return
	}
	l.rows[to] = l.rows[to].Plus(l.rows[from])
	delete(l.rows, from)
	delete(l.changed, from)
	l.touch(to)
	l.file.stale = true // only writing it anew takes a row out
}

// sorted are the rows, the oldest first.
func (l *Ledger) sorted() []row {
	return slices.SortedFunc(maps.Keys(l.rows), func(a, b row) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Side, b.Side))
	})
}

var (
	_ io.Closer      = (*Ledger)(nil)
	_ embedder.Purse = (*Purse)(nil)
)
