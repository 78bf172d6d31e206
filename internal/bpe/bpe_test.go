package bpe

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/pkoukk/tiktoken-go"
	tiktoken_loader "github.com/pkoukk/tiktoken-go-loader"
)

// scale divides the amount of work of the larger tests.
var scale = 1

var references = map[string]func() *tiktoken.Tiktoken{CL100K: reference(CL100K), O200K: reference(O200K)}

var setLoader = sync.OnceFunc(func() { tiktoken.SetBpeLoader(tiktoken_loader.NewOfflineLoader()) })

func reference(name string) func() *tiktoken.Tiktoken {
	return sync.OnceValue(func() *tiktoken.Tiktoken {
		setLoader()
		t, err := tiktoken.GetEncoding(name)
		if err != nil {
			panic(err)
		}
		return t
	})
}

func encoding(t testing.TB, name string) *Encoding {
	t.Helper()
	e, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// nasty are texts at which pre-tokenisers go wrong.
var nasty = []string{
	"", " ", "  ", "\n", "\r\n", " \n ", "a", " a", "  a", "\ta", "\t\ta", "a  b", "a \n b", "a\n\n\nb", "a\r\n\r\n  b", "x\u00a0y", "x\u00a0\u00a0y", "\u2028\u2029 z",
	"I'm you're he's they've I'll we'd don't", "I'M YOU'RE HE'S THEY'VE I'LL WE'D DON'T", "'s", "''s", "'sa", "'l", "'L", "'lL", "'re", "'r", "rock'n'roll", "x'ſ", "'ſ", "\u212a",
	"1", "12", "123", "1234", "12345678", "1a2b3c", "٣٤٥٦", "½¾", "Ⅷ", "3.14159", "1,000,000",
	"!", "!!", " !", "  !", "!\n", "!\r\n\r\n x", "!!\n/x", "http://a.b/c?d=e&f=g", "/usr/local//bin", "...", "a.b.c", ".a", "#a", "# a", "-- a", "\"quoted\"", "(a)",
	"camelCase", "CamelCASEName", "HTTPServer", "ABC", "ABCd", "aB", "ABc中D", "中A", "中文字符", "中a中A中AB", "日本語のテキスト。", "한국어 텍스트", "ʰA", "Aʰ", "AʰB", "ǅ", "ǅǅa",
	"e\u0301", "\u0301", "\u0301A", "\u0301\u0301A", "!\u0301", "!!\u0301", "!!\u0301a", " \u0301", " \u0301A", "A\u0301B", "a\u0301B\u0301c", "\u0301'S",
	"😀", " 😀", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "a😀b", "\U00020000\U0002a6df", "\U0001d400\U0001d401x", "\U0010ffff",
	"\xff", "a\xffb", "\xff\xfe", "\xe2\x82", "\xe2\x82 ", "a \xe2", "\xf0\x9f\x98", "\xed\xa0\x80", "\x00", "\x00\x00a", " \xff", "\xff\n", "\xff\xffa", "!\xffx\xff", "\xc3(", "\ufffd", "\ufffd\xff\ufffd",
	"<|endoftext|>", "<|fim_prefix|>x", "\ufeffbom", "\u200b", "\u200b\u200b", "\u0085", "a\u0085b", "\x1c\x1d", "\v\f",
	strings.Repeat("a", 300), strings.Repeat("ab", 500), strings.Repeat(" ", 300), strings.Repeat("\n", 300), strings.Repeat("=", 257), strings.Repeat("-", 256), strings.Repeat("😀", 100),
	strings.Repeat("antidisestablishmentarianism", 20), strings.Repeat("\xff", 300), strings.Repeat("中", 200), strings.Repeat("9", 100), strings.Repeat("aB", 200),
}

func TestLoad(t *testing.T) {
	if _, err := Load("p50k_base"); err == nil || !strings.Contains(err.Error(), CL100K) {
		t.Errorf("Load(p50k_base): %v, want an error that names the encodings", err)
	}
	for name, want := range map[string]int{CL100K: 100256, O200K: 199998} {
		if e := encoding(t, name); e.size() != want || e.Name() != name || e.Longest() != 128 {
			t.Errorf("%s: %d tokens, the longest of %d bytes", e.Name(), e.size(), e.Longest())
		}
	}
}

func TestParse(t *testing.T) {
	for name, file := range map[string]string{
		"rank out of order": "IQ== 0\nIg== 2\n",
		"no rank":           "IQ==\nIg==\n",
		"not base64":        "!! 0\n",
		"bytes missing":     "IQ== 0\n",
	} {
		if _, err := parse(CL100K, []byte(file)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// check holds everything that can be asked of a text to the reference.
func check(t *testing.T, name, text string) {
	t.Helper()
	e := encoding(t, name)
	want := references[name]().EncodeOrdinary(text)
	got := e.Encode(nil, text)
	if !slices.Equal(got, want) {
		t.Fatalf("%s: Encode(%.200q)\n got %v\nwant %v", name, text, got, want)
	}
	if n := e.Count(text); n != len(want) {
		t.Fatalf("%s: Count(%.200q) = %d, want %d", name, text, n, len(want))
	}
	checkEnds(t, e, text, got)
}

// checkEnds holds token ends to the tokens' own bytes.
func checkEnds(t *testing.T, e *Encoding, text string, ids []int) {
	t.Helper()
	ends := e.AppendEnds(nil, text)
	if len(ends) != len(ids) || !slices.IsSorted(ends) {
		t.Fatalf("%s: AppendEnds(%.200q): %d ends for %d tokens: %v", e.name, text, len(ends), len(ids), ends)
	}
	if len(ends) > 0 && int(ends[len(ends)-1]) != len(text) {
		t.Fatalf("%s: the last token of %.200q ends at %d of %d", e.name, text, ends[len(ends)-1], len(text))
	}
	if !utf8.ValidString(text) {
		return
	}
	from := 0
	for i, end := range ends {
		if text[from:end] != e.token(int32(ids[i])) {
			t.Fatalf("%s: token %d of %.200q is %q, not text[%d:%d]", e.name, i, text, e.token(int32(ids[i])), from, end)
		}
		from = int(end)
	}
}

// checkIndex holds the count of every span between the cuts to that of the span by itself.
func checkIndex(t *testing.T, e *Encoding, x *Index, text string, cuts []int) {
	t.Helper()
	x.ResetEnds(e, text)
	if !slices.Equal(x.Ends(), e.AppendEnds(nil, text)) {
		t.Fatalf("%s: an index of %.200q has other ends", e.name, text)
	}
	for i, a := range cuts {
		for _, b := range cuts[i:] {
			if got, want := x.Count(a, b), e.Count(text[a:b]); got != want {
				t.Fatalf("%s: Count(%d, %d) of %.300q = %d, want %d for %.100q", e.name, a, b, text, got, want, text[a:b])
			}
		}
	}
}

func TestEqualsTiktoken(t *testing.T) {
	for _, name := range []string{CL100K, O200K} {
		for _, text := range nasty {
			check(t, name, text)
		}
		check(t, name, strings.Join(nasty, ""))
		check(t, name, strings.Join(nasty, " "))
	}
}

// Every rune, alone between others of each kind: the classes are the reference's.
func TestEveryRune(t *testing.T) {
	step := rune(scale)
	if testing.Short() {
		step = 17
	}
	e, ref := encoding(t, O200K), references[O200K]()
	for from := rune(0); from <= utf8.MaxRune; from += 4096 {
		if from >= 0x30000 && from < 0xe0000 || from >= 0xf0000 {
			continue // unassigned or for private use
		}
		var b strings.Builder
		for r := from; r < from+4096; r += step {
			b.WriteString("a")
			b.WriteRune(r)
			b.WriteString("B ")
		}
		if got, want := e.Encode(nil, b.String()), ref.EncodeOrdinary(b.String()); !slices.Equal(got, want) {
			t.Fatalf("runes from %U on are encoded differently", from)
		}
	}
}

func TestIndexNasty(t *testing.T) {
	var x Index
	for _, name := range []string{CL100K, O200K} {
		e := encoding(t, name)
		for _, text := range append(slices.Clone(nasty), strings.Join(nasty[:60], "")) {
			cuts := []int{}
			for i := 0; i <= len(text); i += max(1, scale*len(text)/60) {
				cuts = append(cuts, i)
			}
			checkIndex(t, e, &x, text, append(cuts, len(text)))
		}
	}
}

// random makes a text of pieces that meet at every kind of border.
func random(r *rand.Rand, n int) string {
	alphabet := []string{"a", "B", "the", " ", " ", "  ", "\n", "\r\n", "\t", "1", "2023", "!", ".", "/", "'", "'s", "'LL", "中", "文", "é", "e\u0301", "\u0301", "ʰ", "ǅ", "😀", "\u00a0", "\xff", "\xe2\x82", "\u2028", "Word", "ing", "½"}
	var b strings.Builder
	for range n {
		b.WriteString(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

func TestRandom(t *testing.T) {
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	rounds /= scale
	r := rand.New(rand.NewPCG(1, 2))
	var x Index
	for i := range rounds {
		name := []string{CL100K, O200K}[i%2]
		text := random(r, 1+r.IntN(40))
		check(t, name, text)
		cuts := []int{}
		for i := range len(text) + 1 {
			cuts = append(cuts, i)
		}
		if i < rounds/4 {
			checkIndex(t, encoding(t, name), &x, text, cuts)
		}
	}
}

// A long piece goes through queues, a short one through an array: they must agree, and with the reference.
func TestLongPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{CL100K, O200K} {
		e := encoding(t, name)
		m := new(merger)
		for i := range 300 / scale {
			n := 2 + r.IntN(longPiece-3)
			piece := make([]byte, n)
			for j := range piece {
				piece[j] = "abcdefghijklmnopqrstuvwxyz"[r.IntN(1+i%26)]
			}
			short := slices.Clone(m.split(e, string(piece)))
			long := new(longMerger).split(e, string(piece))
			if !slices.EqualFunc(short, long, func(a, b part) bool { return a.start == b.start }) {
				t.Fatalf("%s: %q is split differently by queues", name, piece)
			}
		}
		for _, n := range []int{longPiece, longPiece + 1, 3000} {
			piece := make([]byte, n)
			for j := range piece {
				piece[j] = "etaoinshr"[r.IntN(9)]
			}
			check(t, name, string(piece))
		}
	}
}

// Real text, where it is at hand.
func TestRealText(t *testing.T) {
	shared := os.Getenv("LIVERAG_SHARED")
	if shared == "" {
		t.Skip("LIVERAG_SHARED is not set: no real text to compare with tiktoken-go")
	}
	files, err := filepath.Glob(filepath.Join(shared, "data/chroma-chunking/corpora/*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpora: %v", err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	var x Index
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		if testing.Short() {
			text = text[:30_000]
		}
		for _, name := range []string{CL100K, O200K} {
			check(t, name, text)
			e := encoding(t, name)
			x.Reset(e, text)
			for range 2000 / scale {
				a := r.IntN(len(text))
				b := min(len(text), a+r.IntN(2000))
				if got, want := x.Count(a, b), e.Count(text[a:b]); got != want {
					t.Fatalf("%s: Count(%d, %d) = %d, want %d", name, a, b, got, want)
				}
			}
		}
	}
}

// Goroutines share an encoding.
func TestConcurrent(t *testing.T) {
	e := encoding(t, CL100K)
	text := markdown(20_000) + strings.Repeat("abc", 500)
	want := e.Count(text)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if got := e.Count(text); got != want {
					t.Errorf("%d tokens, want %d", got, want)
				}
			}
		})
	}
	wg.Wait()
}

// Huge texts without a border must not go quadratic, in either encoding: this test would not end.
func TestHuge(t *testing.T) {
	n := 1 << 17
	if os.Getenv("LIVERAG_HUGE") != "" {
		n = 8 << 20
	} else if testing.Short() {
		n = 1 << 16
	}
	n /= scale
	var x Index
	for _, name := range []string{CL100K, O200K} {
		e := encoding(t, name)
		for _, unit := range []string{"a", "A", "\n", " ", "\t", "😀", "ab!", "the", "9", "\x00", "\xff", "\xe2\x82", "中", "\u0301", " \n"} {
			text := strings.Repeat(unit, n/len(unit))
			ends := e.AppendEnds(nil, text)
			if count := e.Count(text); count != len(ends) || int(ends[count-1]) != len(text) {
				t.Errorf("%s: %d tokens and %d ends of %q repeated", name, count, len(ends), unit)
			}
			x.Reset(e, text)
			if count := x.Count(0, len(text)); count != len(ends) {
				t.Errorf("%s: %d tokens and %d by an index of %q repeated", name, len(ends), count, unit)
			}
			for _, p := range []int{1, len(text) / 3, len(text) - 1} {
				if got, want := x.Count(0, p)+x.Count(p, len(text)), e.Count(text[:p])+e.Count(text[p:]); got != want {
					t.Errorf("%s: %d tokens by an index of %q repeated and cut at %d, want %d", name, got, unit, p, want)
				}
			}
		}
	}
}

func FuzzEncode(f *testing.F) {
	for _, text := range nasty {
		f.Add(text, uint16(len(text)/3), uint16(len(text)/2))
	}
	f.Fuzz(func(t *testing.T, text string, a, b uint16) {
		for _, name := range []string{CL100K, O200K} {
			check(t, name, text)
			var x Index
			checkIndex(t, encoding(t, name), &x, text, sorted(0, min(int(a), len(text)), min(int(b), len(text)), len(text)))
		}
	})
}

func sorted(cuts ...int) []int {
	slices.Sort(cuts)
	return cuts
}

// markdown is prose with the usual marks, made from a seed: benchmarks need no data but this program.
func markdown(n int) string {
	r := rand.New(rand.NewPCG(7, 8))
	words := strings.Fields("the index follows a log of changes and answers from it while documents are written again partition offset Kubernetes configuration metric `http_requests_total` scrape (see [rules](rules.md)) alerting, queries; however: replication isn't instantaneous 15s 2024 time-series")
	var b strings.Builder
	for b.Len() < n {
		b.WriteString("## " + words[r.IntN(len(words))] + " " + words[r.IntN(len(words))] + "\n\n")
		for range 3 {
			for range 40 + r.IntN(60) {
				b.WriteString(words[r.IntN(len(words))])
				b.WriteByte(' ')
			}
			b.WriteString(".\n\n")
		}
	}
	return b.String()[:n]
}

func benchText(b *testing.B) string {
	if shared := os.Getenv("LIVERAG_SHARED"); shared != "" {
		var all []byte
		for _, name := range []string{"wikitexts", "chatlogs", "state_of_the_union", "finance"} {
			data, err := os.ReadFile(filepath.Join(shared, "data/chroma-chunking/corpora", name+".md"))
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, data...)
		}
		return string(all)
	}
	return markdown(1 << 20)
}

func BenchmarkCount(b *testing.B) {
	text := benchText(b)
	for _, name := range []string{CL100K, O200K} {
		b.Run(name, func(b *testing.B) {
			e := encoding(b, name)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				e.Count(text)
			}
		})
	}
	b.Run("tiktoken-go", func(b *testing.B) {
		ref := references[CL100K]()
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			ref.EncodeOrdinary(text)
		}
	})
	b.Run("8MiB-of-a", func(b *testing.B) {
		e := encoding(b, CL100K)
		text := strings.Repeat("a", 8<<20)
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			e.Count(text)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	for _, name := range []string{CL100K, O200K} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := load(name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
