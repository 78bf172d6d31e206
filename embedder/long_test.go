package embedder_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

// small reads a few words at a time, and two tokens frame an input. It refuses what is longer, so that nothing passes unnoticed.
type small struct {
	*embedder.Hash
	t    testing.TB
	most int
	read *[]string
}

func (small) Name() string    { return "small/1" }
func (s small) MaxInput() int { return s.most }
func (small) CountTokens(in string) int {
	n := 2
	for _, word := range strings.Fields(in) {
		n += (utf8.RuneCountInString(word) + 7) / 8
	}
	return n
}

func (s small) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	for i, input := range inputs {
		if n := s.CountTokens(input); n > s.most {
			return nil, &embedder.Error{Op: "small", Input: i, Err: fmt.Errorf("%d tokens", n)}
		}
		if strings.Contains(input, "poison") {
			return nil, &embedder.Error{Op: "small", Input: i, Err: errors.New("poison")}
		}
	}
	if s.read != nil {
		*s.read = append(*s.read, inputs...)
	}
	return s.Hash.Embed(ctx, role, inputs)
}

func newLong(t testing.TB, most int, policy embedder.LongPolicy) (*embedder.LongInputs, *[]string) {
	t.Helper()
	read := new([]string)
	l, err := embedder.Long(small{embedder.NewHash(64), t, most, read}, policy)
	if err != nil {
		t.Fatal(err)
	}
	return l, read
}

func TestLongConforms(t *testing.T) {
	for _, policy := range []embedder.LongPolicy{embedder.LongSplit, embedder.LongTruncate} {
		t.Run(string(policy), func(t *testing.T) {
			embeddertest.Run(t, func() embedder.Embedder {
				l, err := embedder.Long(small{Hash: embedder.NewHash(64), t: t, most: 20}, policy)
				if err != nil {
					t.Fatal(err)
				}
				return l
			})
		})
	}
}

func TestLongSplit(t *testing.T) {
	l, read := newLong(t, 10, embedder.LongSplit)
	long := "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
	got, err := l.Embed(t.Context(), embedder.Index, []string{"short", long, "short too"})
	if err != nil {
		t.Fatal(err)
	}
	pieces := (*read)[1 : len(*read)-1]
	if strings.Join(strings.Fields(strings.Join(pieces, " ")), " ") != long {
		t.Errorf("pieces %q: they must be all of the text, cut between words", pieces)
	}
	if len(pieces) != 3 { // 17 words, seventeen is two tokens: 8 a piece
		t.Errorf("%d pieces, want as few as possible", len(pieces))
	}
	v, _ := embedder.NewHash(64).Embed(t.Context(), embedder.Index, pieces)
	want := make([]float64, 64)
	for i, piece := range pieces {
		for d := range want {
			want[d] += float64(small{}.CountTokens(piece)) * float64(v[i][d])
		}
	}
	var square float64
	for _, x := range want {
		square += x * x
	}
	for d := range want {
		if diff := math.Abs(want[d]/math.Sqrt(square) - float64(got[1][d])); diff > 1e-6 {
			t.Fatalf("dimension %d differs by %g from the weighted mean", d, diff)
		}
	}
	if l.LongInputs() != 1 || l.MaxInput() != 0 || l.Name() != "small/1+long=split" {
		t.Errorf("%d long, MaxInput %d, name %q", l.LongInputs(), l.MaxInput(), l.Name())
	}
	mustAnswer(t, "short", func() ([][]float32, error) { return [][]float32{got[0], got[2]}, nil }, "short", "short too")
}

func TestLongSplitExtremes(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("x", 5000),
		strings.Repeat("日本語", 900),
		strings.Repeat("\x80", 999),
		strings.Repeat("👩‍👩‍👧", 300),
		strings.Repeat(" ", 5000) + "word " + strings.Repeat(" \n", 4000) + strings.Repeat("word ", 100),
		strings.Repeat("a ", 3000),
	} {
		for _, most := range []int{3, 10, 256} {
			l, read := newLong(t, most, embedder.LongSplit)
			if _, err := l.Embed(t.Context(), embedder.Index, []string{text}); err != nil {
				t.Errorf("%.20q at %d: %v", text, most, err)
			}
			drop := func(s string) string { return strings.Join(strings.Fields(s), "") }
			if got := drop(strings.Join(*read, "")); got != drop(text) {
				t.Errorf("%.20q at %d: %d of %d bytes were read", text, most, len(got), len(drop(text)))
			}
			if again, reread := newLong(t, most, embedder.LongSplit); again != nil {
				again.Embed(t.Context(), embedder.Index, []string{text})
				if !slices.Equal(*read, *reread) {
					t.Errorf("%.20q at %d: cut differently the second time", text, most)
				}
			}
		}
	}
}

// beginning reads as many tokens as it can of whatever it is given.
type beginning struct{ small }

func (beginning) Truncates() {}

func (b beginning) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	*b.read = append(*b.read, inputs...)
	return b.Hash.Embed(ctx, role, inputs)
}

// A model that truncates by itself gets the whole input: where it ends is for it to say, in the middle of a word if need be.
func TestLongTruncateByTheModelItself(t *testing.T) {
	read := new([]string)
	l, err := embedder.Long(embedder.Batch(beginning{small{embedder.NewHash(64), t, 5, read}}, embedder.BatchConfig{}), embedder.LongTruncate)
	if err != nil {
		t.Fatal(err)
	}
	inputs := []string{"one two", "one two three four five six"}
	if _, err := l.Embed(t.Context(), embedder.Index, inputs); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(*read, inputs) || l.LongInputs() != 1 || l.Name() != "small/1+long=truncate/2" {
		t.Errorf("%s read %q, %d long", l.Name(), *read, l.LongInputs())
	}
	split, err := embedder.Long(beginning{small{embedder.NewHash(64), t, 5, read}}, embedder.LongSplit)
	if err != nil {
		t.Fatal(err)
	}
	*read = nil
	if _, err := split.Embed(t.Context(), embedder.Index, inputs); err != nil || len(*read) != 3 {
		t.Errorf("split, it read %q, %v", *read, err)
	}
}

func TestLongTruncate(t *testing.T) {
	l, read := newLong(t, 5, embedder.LongTruncate)
	if _, err := l.Embed(t.Context(), embedder.Index, []string{"a b c d e f", "x", "g h i j"}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a b c", "x", "g h i"}; !slices.Equal(*read, want) {
		t.Errorf("read %q, want %q", *read, want)
	}
	if l.LongInputs() != 2 || l.MaxInput() != 5 {
		t.Errorf("%d long, MaxInput %d", l.LongInputs(), l.MaxInput())
	}
}

func TestLongReject(t *testing.T) {
	l, read := newLong(t, 5, embedder.LongReject)
	_, err := l.Embed(t.Context(), embedder.Index, []string{"fine", "a b c d e f"})
	var failed *embedder.Error
	if !errors.As(err, &failed) || failed.Input != 1 || failed.Temporary || !errors.Is(err, embedder.ErrInputTooLong) {
		t.Errorf("got %v", err)
	}
	if len(*read) != 0 {
		t.Errorf("the model was asked for %q", *read)
	}
}

func TestLongBlame(t *testing.T) {
	l, _ := newLong(t, 5, embedder.LongSplit)
	_, err := l.Embed(t.Context(), embedder.Index, []string{"a b c d e f g h", "i", "j k l m n o poison q", "r"})
	if i, _ := blame(err); i != 2 {
		t.Errorf("input %d is blamed, want 2: %v", i, err)
	}
}

func TestLongNeedsATokenizer(t *testing.T) {
	if _, err := embedder.Long(uncounted{embeddertest.NewProvider()}, embedder.LongSplit); err == nil {
		t.Error("no error")
	}
	if _, err := embedder.Long(embeddertest.NewProvider(), "sideways"); err == nil {
		t.Error("no error")
	}
	l, err := embedder.Long(embeddertest.NewProvider(), embedder.LongReject)
	if err != nil || l.Name() != "provider/64" {
		t.Errorf("a model without a limit: %q, %v", l.Name(), err)
	}
}

type uncounted struct{ *embeddertest.Provider }

func (uncounted) MaxInput() int { return 5 }
