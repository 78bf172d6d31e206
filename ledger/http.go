package ledger

import (
	"cmp"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/problem"
)

// Spending is what embedding took in the last days.
type Spending struct {
	// State is ready, or paused when documents wait because the day's cap is reached: since Since, and Detail says what to do.
	State  embedder.State `json:"state"`
	Since  time.Time      `json:"since,omitzero"`
	Detail string         `json:"detail,omitempty"`
	// Kept tells that figures outlive the process; if not, NotKept says why.
	Kept    bool   `json:"kept"`
	NotKept string `json:"not_kept,omitempty"`
	// Today is the day that spending counts for, and EndsAt when the next one begins: at midnight, UTC.
	Today  Charges   `json:"today"`
	Day    string    `json:"day"`
	EndsAt time.Time `json:"ends_at"`
	// Cap is what may be spent in a day, and Left what of it is left. What is not capped is absent.
	Cap  *Limit `json:"cap,omitempty"`
	Left *Limit `json:"left,omitempty"`
	// Days are told newest first; Generations and Models are their sums.
	Days        []Day    `json:"days"`
	Generations []Worked `json:"generations"`
	Models      []Model  `json:"models"`
}

// Limit is money, tokens, or both.
type Limit struct {
	USD    *USD   `json:"usd,omitempty"`
	Tokens *int64 `json:"tokens,omitempty"`
}

// Day is what a day took.
type Day struct {
	Day string `json:"day"`
	Charges
	Generations []Worked `json:"generations"`
	Models      []Model  `json:"models"`
}

// Charges are what providers took. Tokens are by their own count, where they tell.
type Charges struct {
	Requests      int64 `json:"requests"`
	TokensBilled  int64 `json:"tokens_billed"`
	TokensRetried int64 `json:"tokens_retried"`
	Cost          USD   `json:"cost_usd"`
}

// Worked is what was embedded for a generation, and what was not.
type Worked struct {
	Generation       string `json:"generation"`
	Model            string `json:"model"`
	ChunksEmbedded   int64  `json:"chunks_embedded"`
	ChunksReused     int64  `json:"chunks_reused"`
	TokensEmbedded   int64  `json:"tokens_embedded"`
	TokensReused     int64  `json:"tokens_reused"`
	Superseded       int64  `json:"superseded"`
	TokensSuperseded int64  `json:"tokens_superseded"`
	DeadLetters      int64  `json:"dead_letters"`
	TokensBilled     int64  `json:"tokens_billed"`
	Cost             USD    `json:"cost_usd"`
	// Saved is what the reused tokens would have cost, at today's price.
	Saved USD `json:"saved_usd"`
}

// Model is what a model took, for documents and for questions.
type Model struct {
	Model string `json:"model"`
	Charges
	Documents Charges `json:"documents"`
	Questions Charges `json:"questions"`
}

// Routes registers GET /spending.
func (l *Ledger) Routes(e *echo.Echo) { e.GET("/spending", l.get) }

// defaultDays is how many days are told if nobody asks for another number.
const defaultDays = 30

func (l *Ledger) get(c echo.Context) error {
	days := defaultDays
	if text := c.QueryParam("days"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > DaysKept {
			return problem.New(http.StatusBadRequest, "invalid", "days is a number from 1 to %d, not %q", DaysKept, text)
		}
		days = n
	}
	return c.JSON(http.StatusOK, l.Spending(days))
}

// Spending tells of the last days, today included.
func (l *Ledger) Spending(days int) Spending {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, notKept := time.Now(), cmp.Or(l.file.because, l.file.failing)
	l.turn(now)
	out := Spending{
		State: embedder.Ready, Kept: notKept == "", NotKept: notKept, Day: string(l.newest), EndsAt: l.newest.end(),
		Days: []Day{}, Generations: []Worked{}, Models: []Model{},
	}
	if why, since := l.refused.why, l.refused.since; why != "" {
		out.State, out.Since, out.Detail = embedder.Paused, since.UTC(), why
	}
	if c := l.cap(); c != (Cap{}) {
		daily, left := c.Limits()
		out.Cap, out.Left = &daily, &left
	}
	oldest := dayOf(l.newest.add(1 - days))
	var all, of summed
	rows := l.sorted()
	for i, r := range rows {
		if r.Day < oldest {
			continue
		}
		of.add(r.account, l.rows[r])
		if i+1 < len(rows) && rows[i+1].Day == r.Day {
			continue
		}
		of.settle()
		d := Day{Day: string(r.Day), Generations: of.worked(l), Models: of.charged()}
		for _, m := range d.Models {
			d.Charges.plus(m.Charges)
		}
		if r.Day == l.newest {
			out.Today = d.Charges
		}
		out.Days = append([]Day{d}, out.Days...)
		for _, part := range of.accounts {
			all.add(part, of.figures[part])
		}
		of = summed{}
	}
	if len(out.Days) > 0 {
		out.Generations, out.Models = all.worked(l), all.charged()
	}
	return out
}

// summed are figures by account, generations of one name together, in the order in which they came.
type summed struct {
	accounts []account
	figures  map[account]Figures
}

func (s *summed) add(a account, f Figures) {
	a.ID = ""
	if s.figures == nil {
		s.figures = map[account]Figures{}
	}
	if _, known := s.figures[a]; !known {
		s.accounts = append(s.accounts, a)
	}
	s.figures[a] = s.figures[a].Plus(f)
}

// settle gives models that nobody charges for, because they run here, what their generations took.
func (s *summed) settle() {
	charged := map[string]bool{}
	for _, a := range s.accounts {
		charged[a.Model] = charged[a.Model] || a.Side == embedder.Index.String()
	}
	for _, a := range s.accounts {
		if f := s.figures[a]; a.Generation != "" && !charged[a.Model] && f.TokensBilled > 0 {
			s.add(account{Model: a.Model, Side: embedder.Index.String()}, Figures{TokensBilled: f.TokensBilled, Cost: f.Cost})
		}
	}
}

func (s *summed) worked(l *Ledger) []Worked {
	out := []Worked{}
	for _, a := range s.accounts {
		f := s.figures[a]
		if a.Generation == "" {
			continue
		}
		out = append(out, Worked{
			Generation: a.Generation, Model: a.Model, ChunksEmbedded: f.ChunksEmbedded, ChunksReused: f.ChunksReused, TokensEmbedded: f.TokensEmbedded, TokensReused: f.TokensReused,
			Superseded: f.Superseded, TokensSuperseded: f.TokensSuperseded, DeadLetters: f.DeadLetters, TokensBilled: f.TokensBilled, Cost: f.Cost,
			Saved: Cost(f.TokensReused, l.config.Prices[a.Model]),
		})
	}
	return out
}

func (s *summed) charged() []Model {
	out := []Model{}
	at := map[string]int{}
	for _, a := range s.accounts {
		if a.Side == "" {
			continue
		}
		if _, known := at[a.Model]; !known {
			at[a.Model] = len(out)
			out = append(out, Model{Model: a.Model})
		}
		f, m := s.figures[a], &out[at[a.Model]]
		charges := Charges{f.Requests, f.TokensBilled, f.TokensRetried, f.Cost}
		side := &m.Documents
		if a.Side == embedder.Query.String() {
			side = &m.Questions
		}
		side.plus(charges)
		m.Charges.plus(charges)
	}
	return out
}

func (c *Charges) plus(d Charges) {
	c.Requests += d.Requests
	c.TokensBilled += d.TokensBilled
	c.TokensRetried += d.TokensRetried
	c.Cost += d.Cost
}
