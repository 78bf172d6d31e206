package chunker

import (
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder/local"
)

// blankOnly is white space as the contract of Counter has it.
var blankOnly = []string{"", " ", "\n", "\t", "\r", " \r\n\t ", strings.Repeat(" ", 60)}

// checkTally holds a tally's count of spans between a and b to the counter's own, and the counter to its contract.
func checkTally(t *testing.T, counter Counter, text string, a, b int) {
	t.Helper()
	frame := counter.Count("")
	for _, blank := range blankOnly {
		if n := counter.Count(blank); n != frame {
			t.Fatalf("%T: %q counts %d, nothing %d", counter, blank, n, frame)
		}
		if blank == "" {
			continue
		}
		if got, want := counter.Count(text[:a]+blank+text[a:]), counter.Count(text[:a])+counter.Count(text[a:])-frame; got != want {
			t.Fatalf("%T: %.200q and %.200q count %d with %q between them, and %d alone", counter, text[:a], text[a:], got, blank, want)
		}
	}
	y := tally{counter: counter}
	y.reset("what was there before is forgotten")
	y.reset(text)
	for _, span := range [][2]int{{0, len(text)}, {0, a}, {a, b}, {a, a}, {b, len(text)}, {a, len(text)}, {0, b}} {
		start, end := span[0], span[1]
		if got, want := y.count(start, end), counter.Count(text[start:end]); got != want {
			t.Fatalf("%T: count(%d, %d) of %.300q = %d, want %d", counter, start, end, text, got, want)
		}
		for _, budget := range []int{frame, frame + 1, 16, 40} {
			at := y.reach(start, budget)
			if at < start || at > len(text) || at > start && counter.Count(text[start:at]) > budget {
				t.Fatalf("%T: reach(%d, %d) of %.300q = %d", counter, start, budget, text, at)
			}
		}
	}
}

// Spans that begin and end anywhere.
func TestTally(t *testing.T) {
	text := document(3, 600) + strings.Repeat(" \n", 100) + "é\u0301 \u00a0\v\f\x00 \ufffd 中文\xff " + strings.Repeat("x", 300)
	for _, counter := range []Counter{pieces{}, wordPieces{}} {
		for i := 0; i <= len(text); i += 5 * scale {
			checkTally(t, counter, text, i/2, i)
			checkTally(t, counter, text, i, len(text)-(len(text)-i)/3)
		}
	}
}

func FuzzTally(f *testing.F) {
	for _, text := range nasty {
		f.Add(text, uint16(len(text)/3), uint16(len(text)/2))
	}
	f.Fuzz(func(t *testing.T, text string, a, b uint16) {
		from, to := min(int(a), len(text)), min(int(b), len(text))
		for _, counter := range []Counter{pieces{}, wordPieces{}} {
			checkTally(t, counter, text, min(from, to), max(from, to))
		}
	})
}

// calls counts how many bytes a counter is asked to count.
type calls struct{ bytes *int }

func (c calls) Count(text string) int {
	*c.bytes += len(text)
	return local.CountWordPieces(text)
}

// A text is counted about once, not at every level at which it is cut.
func TestCountedOnce(t *testing.T) {
	text := document(1, 50_000)
	for _, strategy := range strategies {
		bytes := 0
		c := newChunker(t, Options{Strategy: strategy, Tokenizer: MiniLM, Counter: calls{&bytes}})
		c.split("text/markdown", text)
		if ratio := float64(bytes) / float64(len(text)); ratio > 2 {
			t.Errorf("%s: %.2f times the text was counted", c.Name(), ratio)
		} else {
			t.Logf("%s: %.2f times the text was counted", c.Name(), ratio)
		}
	}
}
