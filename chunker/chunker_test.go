package chunker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/liverag/liverag/internal/bpe"
)

// scale divides the amount of work of the larger tests.
var scale = 1

var strategies = []string{Markdown, Recursive, Token, Whole}

func newChunker(t testing.TB, o Options) pure {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c.(pure)
}

// pieces counts as a word-piece tokenizer does, roughly: a token for each four bytes of a word, one for each mark, and two around.
type pieces struct{}

func (pieces) Count(text string) int {
	n, word := 2, 0
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			n, word = n+(word+3)/4, 0
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			word += utf8.RuneLen(r)
		default:
			n, word = n+(word+3)/4+1, 0
		}
	}
	return n + (word+3)/4
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		name string
		err  string
	}{
		{o: Options{}, name: "markdown/1 tokens=200 overlap=0 tokenizer=cl100k_base"},
		{o: Options{Strategy: Recursive, Tokens: 400, Overlap: 200, Tokenizer: O200K}, name: "recursive/1 tokens=400 overlap=200 tokenizer=o200k_base"},
		{o: Options{Strategy: Token, Tokenizer: MiniLM, Counter: pieces{}}, name: "token/2 tokens=200 overlap=0 tokenizer=minilm"},
		{o: Options{Strategy: Whole, Tokens: 400}, name: "whole/1 tokenizer=cl100k_base"},
		{o: Options{Strategy: "semantic"}, err: `strategy: unknown "semantic": use markdown, recursive, token, whole`},
		{o: Options{Tokens: 15}, err: "tokens: 15 is too few: use 16 or more"},
		{o: Options{Tokens: -1}, err: "tokens: -1 is too few: use 16 or more"},
		{o: Options{Overlap: 200}, err: "overlap: 200 does not fit a budget of 200 tokens: use 0 to 199"},
		{o: Options{Overlap: -1}, err: "overlap: -1 does not fit a budget of 200 tokens: use 0 to 199"},
		{o: Options{Tokenizer: "p50k_base"}, err: `tokenizer: unknown "p50k_base": use cl100k_base, o200k_base or minilm`},
		{o: Options{Tokenizer: MiniLM}, err: "tokenizer: minilm needs a counter: give the embedder's, or use cl100k_base or o200k_base"},
		{o: Options{Counter: pieces{}}, err: "counter: cl100k_base brings its own: leave it nil"},
	} {
		c, err := New(tt.o)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%+v: error %v, want %s", tt.o, err, tt.err)
			}
			continue
		}
		if err != nil || c.Name() != tt.name {
			t.Errorf("%+v: %v, %v, want %s", tt.o, c, err, tt.name)
		}
	}
}

// verify holds chunks to the contract of Chunker.
func verify(t *testing.T, c pure, o Options, contentType, text string) []Chunk {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s of %d bytes of %s, %.300q: %s", c.Name(), len(text), contentType, text, fmt.Sprintf(format, args...))
	}
	count := pieces{}.Count
	if o.Tokenizer != MiniLM {
		e, err := bpe.Load(o.Tokenizer)
		if err != nil {
			t.Fatal(err)
		}
		count = e.Count
	}
	chunks := c.split(contentType, text)
	if again := c.split(contentType, strings.Clone(text)); !reflect.DeepEqual(chunks, again) {
		fail("%v the first time, %v the second", chunks, again)
	}
	valid := utf8.ValidString(text)
	covered := 0
	for i, chunk := range chunks {
		if chunk.Start < 0 || chunk.Start >= chunk.End || chunk.End > len(text) {
			fail("chunk %d is %+v", i, chunk)
		}
		if i > 0 {
			before := chunks[i-1]
			if chunk.Start < before.Start || chunk.Start == before.Start && chunk.End <= before.End || chunk.End <= before.End {
				fail("chunk %d, %+v, after %+v", i, chunk, before)
			}
			if o.Overlap == 0 && chunk.Start < before.End {
				fail("chunk %d, %+v, overlaps %+v", i, chunk, before)
			}
		}
		span := text[chunk.Start:chunk.End]
		if n := count(span); n != chunk.Tokens {
			fail("chunk %d, %+v, has %d tokens", i, chunk, n)
		}
		if o.Strategy != Whole && chunk.Tokens > o.Tokens {
			fail("chunk %d, %+v, is over the budget", i, chunk)
		}
		if valid && !utf8.ValidString(span) {
			fail("chunk %d, %+v, cuts a rune", i, chunk)
		}
		if strings.TrimSpace(span) == "" {
			fail("chunk %d, %+v, is white space", i, chunk)
		}
		if !utf8.ValidString(chunk.Context) || len(chunk.Context) > maxPath {
			fail("chunk %d has the context %q", i, chunk.Context)
		}
		if chunk.Start > covered && strings.TrimSpace(text[covered:chunk.Start]) != "" {
			fail("no chunk has %.100q", text[covered:chunk.Start])
		}
		covered = max(covered, chunk.End)
	}
	if strings.TrimSpace(text[covered:]) != "" {
		fail("no chunk has %.100q at the end", text[covered:])
	}
	return chunks
}

// nasty are texts at which chunkers go wrong.
var nasty = []string{
	"", " ", "\n\n\n", "\u00a0\u2028", "a", " a ", "\xff", "\xff \xfe", "a\r\n\r\nb\r\n", "\r\r\r", "\ufeff# BOM",
	strings.Repeat("a", 3000), strings.Repeat("\n", 3000), strings.Repeat(" \n", 900) + "x" + strings.Repeat("\n ", 900), strings.Repeat("😀", 700), strings.Repeat("👩‍👩‍👧‍👦", 90),
	strings.Repeat("中文字符。", 300), strings.Repeat("ไทย", 300), strings.Repeat("\xff", 900), strings.Repeat("\xe2\x82", 400), strings.Repeat("é\xff", 400), strings.Repeat("e\u0301", 500),
	strings.Repeat(".", 2000), strings.Repeat("!?.", 700), strings.Repeat("a.", 700), strings.Repeat("word ", 700), strings.Repeat("A sentence. ", 300), strings.Repeat("line\n", 500), strings.Repeat("para\n\n", 300),
	strings.Repeat("0123456789", 300), strings.Repeat(" ", 4000) + "end", "x" + strings.Repeat(" ", 4000), strings.Repeat("x"+strings.Repeat(" ", 90), 60), strings.Repeat("\x00", 500), strings.Repeat("-", 3000),
	strings.Repeat("https://example.com/a/b?c=d&e=f#g", 60), strings.Repeat("aGVsbG8gd29ybGQ=", 150), strings.Repeat("antidisestablishmentarianism", 100),
	"# H\n", "#\n#\n#\n", strings.Repeat("# Heading\n", 200), strings.Repeat("#", 500), "Title\n===\n\ntext\n\nSub\n---\nmore", "---\ntitle: x\n---\n# H\ntext", "---\nnever closed\n# H",
	"# A\n## B\n### C\ntext\n# D\n###### E\ntext", "# " + strings.Repeat("long ", 200) + "\ntext " + strings.Repeat("text ", 500), "# \xff\xff\n" + strings.Repeat("text ", 400),
	"```\n# no heading\n```\n# H\n", "```\nopen\n# no heading\n", "~~~\n```\n~~~\n# H", "- a\n  ```\n  # no\n  ```\n# H", "- a\n  ```\nb\n# H", "    # code\n# H",
	"| a | b |\n|---|---|\n" + strings.Repeat("| cell | another cell |\n", 200), "# T\n" + strings.Repeat("- item one two three\n", 200), "<!-- # no\n# no -->\n# H", "<pre>\n# no\n</pre>\n# H", "<!-- open\n# no",
	"# H\n```go\n" + strings.Repeat("x := f(1, 2) // comment\n", 200) + "```\nafter", "* * *\n- - -\n___\ntext", "-\n-\n-", "1. a\n2. b\n\n   c\n\nd", "a\n-", "a\n=\nb\n=",
}

func fuzzOptions(strategy string, tokens, overlap uint16, tokenizer byte) Options {
	o := Options{Strategy: strategy, Tokens: minTokens + int(tokens)%500, Tokenizer: []string{CL100K, O200K, MiniLM}[tokenizer%3]}
	o.Overlap = int(overlap) % o.Tokens
	if o.Tokenizer == MiniLM {
		o.Counter = pieces{}
	}
	return o
}

func fuzz(f *testing.F, strategy string) {
	for i, text := range nasty {
		f.Add(text, uint16(0), uint16(0), byte(0), true)
		f.Add(text, uint16(i), uint16(i), byte(i), i%4 > 0)
		f.Add(text, uint16(184), uint16(50*(i%3)), byte(1), true)
		f.Add(text, uint16(20), uint16(35), byte(2), true)
	}
	f.Fuzz(func(t *testing.T, text string, tokens, overlap uint16, tokenizer byte, markdown bool) {
		o := fuzzOptions(strategy, tokens, overlap, tokenizer)
		contentType := "text/plain"
		if markdown {
			contentType = "text/markdown"
		}
		verify(t, newChunker(t, o), o, contentType, text)
	})
}

func FuzzMarkdown(f *testing.F)  { fuzz(f, Markdown) }
func FuzzRecursive(f *testing.F) { fuzz(f, Recursive) }
func FuzzToken(f *testing.F)     { fuzz(f, Token) }
func FuzzWhole(f *testing.F)     { fuzz(f, Whole) }

// Random joints of the pieces that strategies look for.
func TestRandom(t *testing.T) {
	alphabet := []string{"word ", "word", " ", "\n", "\n\n", "\r\n", ". ", "?", "!", "# H\n", "\n## Sub title\n", "---\n", "===\n", "```\n", "- item\n", "  indented\n", "| a | b |\n", "|---|---|\n", "<!--", "-->", "😀", "中文", "\xff", "\xf0\x9f", strings.Repeat("x", 200), strings.Repeat("long line of text ", 30), "\t"}
	rounds := 200
	if testing.Short() {
		rounds = 60
	}
	rounds /= scale
	r := rand.New(rand.NewPCG(9, 10))
	for i := range rounds {
		var b strings.Builder
		for range r.IntN(300) {
			b.WriteString(alphabet[r.IntN(len(alphabet))])
		}
		for _, strategy := range strategies {
			o := fuzzOptions(strategy, uint16(r.IntN(200)), uint16(r.IntN(2)*r.IntN(200)), byte(i))
			verify(t, newChunker(t, o), o, "text/markdown", b.String())
		}
	}
}

// Goroutines share a chunker.
func TestConcurrent(t *testing.T) {
	for _, strategy := range strategies {
		c := newChunker(t, Options{Strategy: strategy})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				text := document(uint64(i), 3000)
				want := c.split("text/markdown", text)
				for range 20 {
					if got := c.split("text/markdown", text); !reflect.DeepEqual(got, want) {
						t.Errorf("%s: %v, then %v", c.Name(), want, got)
					}
				}
			})
		}
		wg.Wait()
	}
}

// Texts of millions of bytes without the borders that strategies look for must not go quadratic: this test would not end.
func TestHuge(t *testing.T) {
	n := 1 << 17
	if os.Getenv("LIVERAG_HUGE") != "" {
		n = 8 << 20
	} else if testing.Short() {
		n = 1 << 16
	}
	n /= scale
	for _, unit := range []string{"a", "\n", " ", "😀", ".", "a.", "x\n", "- a\n", "# h\n", "word ", "\xff", "| a\n", "<!--", "9", "中", "。", "\x00", strings.Repeat("a", 101) + " "} {
		text := strings.Repeat(unit, n/len(unit))
		for _, strategy := range strategies {
			for _, o := range []Options{{}, {Tokenizer: MiniLM, Counter: wordPieces{}}} {
				o.Strategy, o.Overlap = strategy, 20
				c := newChunker(t, o)
				chunks := c.split("text/markdown", text)
				if strings.TrimSpace(unit) == "" {
					if len(chunks) > 0 {
						t.Errorf("%s: %d chunks of white space", c.Name(), len(chunks))
					}
					continue
				}
				if len(chunks) == 0 || len(strings.TrimSpace(text[chunks[len(chunks)-1].End:])) > 0 {
					t.Errorf("%s: %d chunks don't cover %q repeated", c.Name(), len(chunks), unit)
				}
			}
		}
	}
}

// show writes chunks as a person reads them.
func show(text string, chunks []Chunk) string {
	var b strings.Builder
	for _, c := range chunks {
		if c.Context != "" {
			fmt.Fprintf(&b, "[%s] ", c.Context)
		}
		fmt.Fprintf(&b, "%q\n", text[c.Start:c.End])
	}
	return b.String()
}

func TestTables(t *testing.T) {
	sentence := "The log of document changes is the truth, and a generation is a whole index of it."
	for _, tt := range []struct {
		name, contentType, text string
		o                       Options
		want                    []string
	}{
		{
			"headings cut, and give the path", "text/markdown", "intro\n\n# One\n\nfirst\n\n## Two ##\n\nsecond\n\n# Three\nthird\n", Options{},
			[]string{`"intro"`, `"# One\n\nfirst"`, `[One] "## Two ##\n\nsecond"`, `"# Three\nthird"`},
		},
		{
			"headings without text stay with what follows", "text/markdown", "# One\n## Two\n\n### Three\ntext\n### Four\n", Options{},
			[]string{`"# One\n## Two\n\n### Three\ntext"`, `[One > Two] "### Four"`},
		},
		{
			"setext headings", "text/markdown", "One\n===\nfirst\n\nTwo\nwords\n---\nsecond\n", Options{},
			[]string{`"One\n===\nfirst"`, `[One] "Two\nwords\n---\nsecond"`},
		},
		{
			"no headings in code, comments, front matter", "text/markdown", "---\ntitle: x\n---\n```\n# a\n```\n<!--\n# b\n-->\n    # c\n\n- d\n  ```\n  # e\n  ```\n", Options{},
			[]string{`"---\ntitle: x\n---\n` + "```" + `\n# a\n` + "```" + `\n<!--\n# b\n-->\n    # c\n\n- d\n  ` + "```" + `\n  # e\n  ` + "```" + `"`},
		},
		{
			"no headings in plain text", "text/plain", "# a\n# b\n", Options{},
			[]string{`"# a\n# b"`},
		},
		{
			"what is cut below a heading has the heading as context", "text/markdown", "# One\n" + sentence + "\n\n" + sentence + "\n\n" + sentence + "\n", Options{Tokens: 24},
			[]string{`"# One\n` + sentence + `"`, `[One] "` + sentence + `"`, `[One] "` + sentence + `"`},
		},
		{
			"a table stays whole", "text/markdown", "# T\n" + sentence + "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n", Options{Tokens: 30},
			[]string{`"# T\n` + sentence + `"`, `[T] "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"`},
		},
		{
			"code stays whole", "text/markdown", sentence + "\n```\na := 1\n\nb := 2\n```\n" + sentence, Options{Tokens: 24},
			[]string{`"` + sentence + `"`, `"` + "```" + `\na := 1\n\nb := 2\n` + "```" + `"`, `"` + sentence + `"`},
		},
		{
			"overlap stays in the section", "text/markdown", "# One\n" + sentence + "\n\n" + sentence + "\n\n# Two\nend", Options{Tokens: 30, Overlap: 4},
			[]string{`"# One\n` + sentence + `"`, `[One] "index of it.\n\n` + sentence + `"`, `"# Two\nend"`},
		},
		{
			"recursive merges paragraphs", "text/plain", "one\n\ntwo\n\n" + sentence + "\n\nthree", Options{Strategy: Recursive, Tokens: 20},
			[]string{`"one\n\ntwo"`, `"` + sentence + `"`, `"three"`},
		},
		{
			"recursive cuts at words when it must", "text/plain", "The log of document changes is the truth, and a generation is a whole index of it", Options{Strategy: Recursive, Tokens: 16},
			[]string{`"The log of document changes is the truth, and a generation is a whole index"`, `"of it"`},
		},
		{
			"with a counter that frames its input, a joint costs recursive a frame, and a piece another", "text/plain", "a\nb\nc\nd\ne\nf\ng", Options{Strategy: Recursive, Tokens: 16, Tokenizer: MiniLM, Counter: pieces{}},
			[]string{`"a\nb\nc"`, `"d\ne\nf"`, `"g"`},
		},
		{
			"but markdown fills the budget", "text/markdown", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nn\no\np", Options{Tokens: 16, Tokenizer: MiniLM, Counter: pieces{}},
			[]string{`"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nn"`, `"o\np"`},
		},
		{
			"token cuts anywhere", "text/plain", "The log of document changes is the truth, and a generation is a whole index of it", Options{Strategy: Token, Tokens: 16, Overlap: 2},
			[]string{`"The log of document changes is the truth, and a generation is a whole index"`, `" whole index of it"`},
		},
		{
			"whole is trimmed", "text/plain", " \n a\n\nb \n", Options{Strategy: Whole},
			[]string{`"a\n\nb"`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := show(tt.text, newChunker(t, tt.o).split(tt.contentType, tt.text))
			if want := strings.Join(tt.want, "\n") + "\n"; got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

// A path that is too long loses the outermost headings, and a title its end.
func TestContextIsBounded(t *testing.T) {
	var b strings.Builder
	for i := 1; i <= 6; i++ {
		fmt.Fprintf(&b, "%s level %d %s\n", strings.Repeat("#", i), i, strings.Repeat("é", 25))
	}
	text := b.String() + "text " + strings.Repeat("text ", 300)
	chunks := newChunker(t, Options{}).split("text/markdown", text)
	last := chunks[len(chunks)-1].Context
	if !strings.HasPrefix(last, "level 4 é") || !strings.Contains(last, " > level 6 é") || len(last) > maxPath {
		t.Errorf("context %q", last)
	}
}

// An edit in one section leaves the chunks of all others as they are.
func TestEditStaysInItsSection(t *testing.T) {
	var sections []string
	for i := range 30 {
		sections = append(sections, fmt.Sprintf("## Section %d\n\n%s\n\n", i, strings.Repeat(fmt.Sprintf("Sentence %d of the log. ", i), 10+i*3)))
	}
	c := newChunker(t, Options{})
	texts := func(doc string) map[string]bool {
		set := map[string]bool{}
		for _, c := range c.split("text/markdown", doc) {
			set[doc[c.Start:c.End]] = true
		}
		return set
	}
	before := texts(strings.Join(sections, ""))
	edited := slices.Clone(sections)
	edited[7] = strings.Replace(edited[7], "Sentence", "A new sentence goes before. Sentence", 1)
	fresh := 0
	for text := range texts(strings.Join(edited, "")) {
		if !before[text] {
			fresh++
			if !strings.Contains(text, "Sentence 7 ") {
				t.Errorf("an edit of section 7 changed %.60q", text)
			}
		}
	}
	if fresh == 0 {
		t.Error("an edit changed no chunk")
	}
}

// document is Markdown of about n bytes, made from a seed.
func document(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	words := strings.Fields("the index follows a log of changes and answers from it while documents are written again partition offset Kubernetes configuration metric `http_requests_total` scrape (see [rules](rules.md)) alerting, queries; however: replication isn't instantaneous 15s 2024 time-series")
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "## %s %s\n\n", words[r.IntN(len(words))], words[r.IntN(len(words))])
		for range 1 + r.IntN(4) {
			for i := range 20 + r.IntN(80) {
				b.WriteString(words[r.IntN(len(words))])
				if i%15 == 14 {
					b.WriteByte('.')
				}
				b.WriteByte(' ')
			}
			b.WriteString("\n\n")
		}
	}
	return b.String()
}

func benchDocuments(b *testing.B) (small []string, large string) {
	if dir := os.Getenv("LIVERAG_SHARED"); dir != "" {
		data, err := os.ReadFile(filepath.Join(dir, "data/chroma-chunking/corpora/wikitexts.md"))
		if err != nil {
			b.Fatal(err)
		}
		for text := string(data); len(text) > 4500; text = text[4500:] {
			small = append(small, strings.ToValidUTF8(text[:4500], ""))
		}
		return small, strings.Repeat(string(data), 9)
	}
	for i := range 50 {
		small = append(small, document(uint64(i), 4500))
	}
	return small, document(1, 1<<20)
}

func BenchmarkSplit(b *testing.B) {
	small, large := benchDocuments(b)
	for _, strategy := range strategies {
		for _, o := range []Options{{Tokens: 200}, {Tokens: 400}, {Tokens: 200, Tokenizer: MiniLM, Counter: wordPieces{}}} {
			o.Strategy = strategy
			c := newChunker(b, o)
			name := fmt.Sprintf("%s-%d", strategy, o.Tokens)
			if o.Tokenizer != "" {
				name += "-" + o.Tokenizer
			}
			b.Run(name+"/documents", func(b *testing.B) {
				b.SetBytes(int64(len(strings.Join(small, "")) / len(small)))
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					c.split("text/markdown", small[i%len(small)])
					i++
				}
			})
			b.Run(name+"/1MB", func(b *testing.B) {
				b.SetBytes(int64(len(large)))
				b.ReportAllocs()
				for b.Loop() {
					c.split("text/markdown", large)
				}
			})
		}
	}
}
