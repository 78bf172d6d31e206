package ledger

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
)

const model = "openai/m"

// open opens a ledger with a price of a dollar a million tokens: a millionth a token.
func open(t testing.TB, dir string, daily Amount) *Ledger {
	t.Helper()
	return opened(t, Config{Dir: dir, Daily: daily, Prices: map[string]float64{model: 1}})
}

func opened(t testing.TB, c Config) *Ledger {
	t.Helper()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	l := Open(c)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func shut(t testing.TB, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// spend takes tokens and has all of them charged.
func spend(t testing.TB, p *Purse, role embedder.Role, tokens int64) {
	t.Helper()
	if until, why := p.Take(role, tokens); !until.IsZero() || why != "" {
		t.Fatalf("%d tokens are refused until %v: %s", tokens, until, why)
	}
	p.Settle(role, tokens, tokens)
}

func accountFile(dir string) string { return filepath.Join(dir, "account.ndjson") }

func TestTheAccountOutlivesTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spending", "documents")
	work := Figures{ChunksEmbedded: 3, ChunksReused: 4, TokensEmbedded: 500, TokensReused: 600, TokensBilled: 550, Superseded: 2, TokensSuperseded: 20, DeadLetters: 1, Cost: Cost(550, 1)}
	for round := int64(1); round <= 3; round++ {
		l := open(t, dir, Amount{})
		l.Add("one", "id1", model, work)
		l.Add("two", "id1", model, work)
		p := l.Purse(model)
		spend(t, p, embedder.Index, 1100)
		spend(t, p, embedder.Query, 7)
		if _, why := p.Take(embedder.Index, 90); why != "" {
			t.Fatal(why)
		}
		p.Settle(embedder.Index, 90, 0)
		want := Figures{}
		for range round {
			want = want.Plus(work)
		}
		if got := l.Of("one", "id1"); got != want {
			t.Errorf("round %d: %+v, want %+v", round, got, want)
		}
		if got := l.Of("one", "id2"); got != (Figures{}) {
			t.Errorf("another generation of that name has %+v", got)
		}
		got := l.Spending(1)
		if !got.Kept || got.Today != (Charges{Requests: 3 * round, TokensBilled: 1107 * round, TokensRetried: 90 * round, Cost: Cost(1107*round, 1)}) {
			t.Errorf("round %d: %+v", round, got)
		}
		if len(got.Models) != 1 || got.Models[0].Questions.TokensBilled != 7*round || got.Models[0].Documents.TokensBilled != 1100*round || got.Models[0].Documents.TokensRetried != 90*round {
			t.Errorf("round %d: %+v", round, got.Models)
		}
		if len(got.Generations) != 2 || got.Generations[0].Saved != Cost(600*round, 1) || got.Generations[0].Cost != Cost(550*round, 1) {
			t.Errorf("round %d: %+v", round, got.Generations)
		}
		shut(t, l)
	}
}

// What is on disk while the process runs is what a kill would leave.
func TestAKillCostsAtMostASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir, Amount{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		p := l.Purse(model)
		for i := range int64(50) {
			spend(t, p, embedder.Index, 10)
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			content, err := os.ReadFile(accountFile(dir))
			if err != nil {
				t.Fatal(err)
			}
			killed := t.TempDir()
			if err := os.WriteFile(accountFile(killed), content, 0o600); err != nil {
				t.Fatal(err)
			}
			after := open(t, killed, Amount{})
			if got := after.Spending(1).Today.TokensBilled; got < 10*(i+1)-100 || got > 10*(i+1) {
				t.Fatalf("after %d tokens %d are on disk", 10*(i+1), got)
			}
			shut(t, after)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsDamagedIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Amount{})
	for i := range 5 {
		l.Add(fmt.Sprint("g", i), "", model, Figures{TokensEmbedded: 100})
		l.file.flush(l)
	}
	l.Add("g0", "", model, Figures{TokensEmbedded: 100})
	shut(t, l)
	whole, err := os.ReadFile(accountFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	if len(lines) != 8 || string(lines[0]) != format+"\n" { // the last one is empty
		t.Fatalf("written: %s", whole)
	}
	// read gives the tokens that are found, after the account was written and read once more.
	read := func(t *testing.T, content []byte) (tokens [5]int64, warned string) {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(accountFile(dir), content, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		l := opened(t, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		l.Add("after", "", model, Figures{TokensEmbedded: 1})
		shut(t, l)
		warned = log.String()
		log.Reset()
		l = opened(t, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		defer shut(t, l)
		if l.Of("after", "").TokensEmbedded != 1 || log.Len() > 0 {
			t.Errorf("after %q was read and written: %s", content, log.String())
		}
		for i := range tokens {
			tokens[i] = l.Of(fmt.Sprint("g", i), "").TokensEmbedded
		}
		return tokens, warned
	}
	if got, warned := read(t, whole); got != [5]int64{200, 100, 100, 100, 100} || warned != "" {
		t.Fatalf("read back: %v, %s", got, warned)
	}
	for _, c := range []struct {
		name    string
		content []byte
		want    [5]int64
		warns   bool
	}{
		{"empty", nil, [5]int64{}, false},
		{"only a header", lines[0], [5]int64{}, false},
		{"garbage", bytes.Repeat([]byte{0, 0xff, '\n', 'x'}, 300), [5]int64{}, true},
		{"the last line torn", whole[:len(whole)-3], [5]int64{100, 100, 100, 100, 100}, true},
		{"the last line without its end", whole[:len(whole)-1], [5]int64{200, 100, 100, 100, 100}, false},
		{"a line in the middle", bytes.Replace(whole, lines[3], append([]byte("x"), lines[3]...), 1), [5]int64{200, 100, 0, 100, 100}, true},
		{"a number in the middle", bytes.Replace(whole, lines[3], bytes.Replace(lines[3], []byte(":100"), []byte(":900"), 1), 1), [5]int64{200, 100, 0, 100, 100}, true},
		{"no header", whole[len(lines[0]):], [5]int64{200, 100, 100, 100, 100}, false},
		{"a damaged header", append([]byte("xx"), whole...), [5]int64{200, 100, 100, 100, 100}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, warned := read(t, c.content)
			if got != c.want || strings.Contains(warned, "WARN") != c.warns {
				t.Errorf("%v, want %v; warned: %s", got, c.want, warned)
			}
		})
	}
	t.Run("wherever it is cut off", func(t *testing.T) {
		before := int64(0)
		dir := t.TempDir()
		for n := 0; n < len(whole); n += 3 {
			if err := os.WriteFile(accountFile(dir), whole[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			l := open(t, dir, Amount{})
			sum := int64(0)
			for i := range 5 {
				sum += l.Of(fmt.Sprint("g", i), "").TokensEmbedded
			}
			shut(t, l)
			if sum < before {
				t.Fatalf("%d of %d bytes hold %d tokens, fewer bytes held %d", n, len(whole), sum, before)
			}
			before = sum
		}
		if before < 500 {
			t.Errorf("all but the last byte hold %d tokens", before)
		}
	})
}

func TestANewerFormatIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	content := []byte("liverag spending 2\nwho knows\n")
	if err := os.WriteFile(accountFile(dir), content, 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, Amount{})
	spend(t, l.Purse(model), embedder.Index, 5)
	if got := l.Spending(1); got.Kept || got.NotKept == "" || got.Today.TokensBilled != 5 {
		t.Errorf("%+v", got)
	}
	shut(t, l)
	if now, err := os.ReadFile(accountFile(dir)); err != nil || !bytes.Equal(now, content) {
		t.Errorf("%q, %v", now, err)
	}
}

func TestOneProcessWrites(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir, Amount{Tokens: 100})
	spend(t, first.Purse(model), embedder.Index, 60)
	first.file.flush(first)
	before, err := os.ReadFile(accountFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	second := open(t, dir, Amount{Tokens: 100})
	if got := second.Spending(1); got.Kept || !strings.Contains(got.NotKept, "in use") || got.Today.TokensBilled != 60 {
		t.Errorf("%+v", got)
	}
	spend(t, second.Purse(model), embedder.Index, 40)
	if _, why := second.Purse(model).Take(embedder.Index, 1); why == "" {
		t.Error("the second process does not keep to the cap")
	}
	shut(t, second)
	if now, err := os.ReadFile(accountFile(dir)); err != nil || !bytes.Equal(now, before) {
		t.Errorf("the second process wrote %s, %v", now, err)
	}
	shut(t, first)
	third := open(t, dir, Amount{})
	if got := third.Spending(1); !got.Kept || got.Today.TokensBilled != 60 {
		t.Errorf("%+v", got)
	}
}

func TestAFullDiskIsWaitedFor(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("this system has no /dev/full")
	}
	dir := t.TempDir()
	var log bytes.Buffer
	l := opened(t, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	p := l.Purse(model)
	spend(t, p, embedder.Index, 1)
	l.file.flush(l)
	l.file.out = full
	spend(t, p, embedder.Index, 2)
	l.file.flush(l)
	// The disk is so full that not even another file can be begun.
	if err := os.Mkdir(accountFile(dir)+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(accountFile(dir)+".new", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	spend(t, p, embedder.Index, 4)
	<-l.wake
	l.file.flush(l)
	if got := l.Spending(1); got.Kept || got.NotKept == "" || got.Today.TokensBilled != 7 {
		t.Errorf("%+v", got)
	}
	if n := strings.Count(log.String(), "WARN"); n != 1 {
		t.Errorf("it is said %d times: %s", n, log.String())
	}
	select {
	case <-l.wake:
	default:
		t.Error("nothing asks for another try")
	}
	if err := os.RemoveAll(accountFile(dir) + ".new"); err != nil {
		t.Fatal(err)
	}
	l.file.flush(l)
	if got := l.Spending(1); !got.Kept {
		t.Errorf("%+v", got)
	}
	shut(t, l)
	if got := open(t, dir, Amount{}).Spending(1).Today.TokensBilled; got != 7 {
		t.Errorf("%d tokens were written", got)
	}
}

// The account of years is bounded, and what a generation took in all is not forgotten.
func TestYearsAreFolded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir, Amount{})
		const days = DaysKept + 150
		for day := range days {
			p := l.Purse(model)
			spend(t, p, embedder.Index, 10)
			l.Add("one", "id", model, Figures{TokensEmbedded: 10})
			if day%10 == 0 {
				l.file.flush(l)
			}
			if day%100 == 99 {
				shut(t, l)
				l = open(t, dir, Amount{})
			}
			time.Sleep(24 * time.Hour)
		}
		if got := l.Of("one", "id").TokensEmbedded; got != 10*days {
			t.Errorf("in all %d tokens, want %d", got, 10*days)
		}
		if n := len(l.rows); n > 2*(DaysKept+1) || n < 2*DaysKept {
			t.Errorf("%d rows", n)
		}
		got := l.Spending(DaysKept)
		if len(got.Days) != DaysKept-1 || got.Models[0].TokensBilled != 10*(DaysKept-1) { // nothing today
			t.Errorf("%d days, %+v", len(got.Days), got.Models)
		}
		if info, err := os.Stat(accountFile(dir)); err != nil || info.Size() > 2*rewriteAbove {
			t.Errorf("%v, %v", info.Size(), err)
		}
		if got := l.Spending(1); len(got.Days) != 0 || len(got.Generations) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// Very many generations, as sweeps make them, do not grow the account without bound.
func TestManyGenerationsAreFolded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "", Amount{})
		const daily, days = 3000, 10
		for range days {
			for i := range daily {
				l.Add(fmt.Sprint("g", i), "id", model, Figures{TokensEmbedded: 1})
			}
			time.Sleep(24 * time.Hour)
		}
		l.Add("last", "id", model, Figures{TokensEmbedded: 1})
		if n := len(l.rows); n > maxRows+daily {
			t.Errorf("%d rows", n)
		}
		sum := Figures{}
		for _, g := range l.Spending(days + 1).Generations {
			sum.TokensEmbedded += g.TokensEmbedded
		}
		if sum.TokensEmbedded != daily*days+1 {
			t.Errorf("%d tokens of %d are left", sum.TokensEmbedded, daily*days+1)
		}
	})
}

func TestTheFileIsWrittenAnewWhenMostOfItIsOvertaken(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Amount{})
	p := l.Purse(strings.Repeat("m", 4<<10))
	largest := int64(0)
	for range 200 {
		spend(t, p, embedder.Index, 1)
		l.file.flush(l)
		largest = max(largest, l.file.size)
	}
	info, err := os.Stat(accountFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != l.file.size || largest > rewriteAbove || largest < rewriteAbove/2 {
		t.Errorf("%d bytes are %d, at most %d", info.Size(), l.file.size, largest)
	}
	shut(t, l)
	if got := open(t, dir, Amount{}).Spending(1).Today.TokensBilled; got != 200 {
		t.Errorf("%d tokens", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Amount{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	const each = 300
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			p := l.Purse(model)
			for range each {
				spend(t, p, embedder.Role(i%2), 1)
				l.Add("g", "id", model, Figures{TokensEmbedded: 1})
				l.Spending(3)
				l.Of("g", "id")
			}
		})
	}
	all.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	shut(t, l)
	l = open(t, dir, Amount{})
	if got := l.Spending(1); got.Today.TokensBilled != 8*each || l.Of("g", "id").TokensEmbedded != 8*each {
		t.Errorf("%+v", got.Today)
	}
}

func TestMoney(t *testing.T) {
	for _, c := range []struct {
		u    USD
		want string
	}{{0, "$0.00"}, {Dollars(5), "$5.00"}, {Dollars(.01), "$0.01"}, {Dollars(1234.567), "$1234.57"}, {Dollars(.00025), "$0.00025"}, {Cost(1, .02), "$0.00000002"}, {Dollars(-.5), "$-0.50"}} {
		if got := c.u.String(); got != c.want {
			t.Errorf("%d is %s, want %s", c.u, got, c.want)
		}
	}
	if got := Cost(1_000_000, .02); got != Dollars(.02) {
		t.Errorf("a million tokens cost %v", got)
	}
	if got := Cost(1<<62, 1e6); got <= 0 {
		t.Errorf("very much is %d", got)
	}
}
