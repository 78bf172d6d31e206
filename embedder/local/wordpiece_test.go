package local

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// ids is an input's ids with the two that frame it.
func ids(text string) []uint16 {
	out := []uint16{classifyID}
	new(scratch).encode(wordPieces(), text, func(ids []uint16) bool {
		out = append(out, ids...)
		return true
	})
	return append(out, separatorID)
}

// TestWordPieceSweep compares every Unicode scalar value, alone and between letters, with the reference implementation, by the digest
// that make-unicode.py wrote.
func TestWordPieceSweep(t *testing.T) {
	want, err := os.ReadFile("testdata/wordpiece-sweep.sha256")
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.New()
	var buf []byte
	var text [6]byte
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		text[0] = 'a'
		n := 1 + utf8.EncodeRune(text[1:5], r)
		text[n] = 'b'
		buf = buf[:0]
		for _, id := range ids(string(text[1:n])) {
			buf = binary.LittleEndian.AppendUint16(buf, id)
		}
		for _, id := range ids(string(text[:n+1])) {
			buf = binary.LittleEndian.AppendUint16(buf, id)
		}
		digest.Write(buf)
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != strings.TrimSpace(string(want)) {
		t.Errorf("digest of all code points is %s, the reference's is %s", got, want)
	}
}

// TestWordPieceCases compares strings with the reference implementation: scripts, marks out of order, control characters, code.
func TestWordPieceCases(t *testing.T) {
	f, err := os.Open("testdata/wordpiece.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	n := 0
	for ; lines.Scan(); n++ {
		var c struct {
			Text string
			IDs  []uint16
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if got := ids(c.Text); !slices.Equal(got, c.IDs) {
			t.Errorf("%+q:\n got %v\nwant %v", c.Text, got, c.IDs)
		}
		if got := CountWordPieces(c.Text); got != len(c.IDs) {
			t.Errorf("CountWordPieces(%+q) = %d, want %d", c.Text, got, len(c.IDs))
		}
	}
	if lines.Err() != nil || n < 400 {
		t.Fatalf("%d cases, %v", n, lines.Err())
	}
}

// TestWordPieceReference compares the lines of a file of {"text","ids"} that was made elsewhere: real texts, fresh random strings.
func TestWordPieceReference(t *testing.T) {
	path := os.Getenv("LIVERAG_WORDPIECE_CASES")
	if path == "" {
		t.Skip("LIVERAG_WORDPIECE_CASES names no file of reference cases")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		var c struct {
			Text string
			IDs  []uint16
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		if got := ids(c.Text); !slices.Equal(got, c.IDs) {
			t.Errorf("%+q:\n got %v\nwant %v", c.Text, got, c.IDs)
		}
		n++
	}
	t.Logf("%d cases", n)
}

func TestWordPieceInvalidUTF8(t *testing.T) {
	if got, want := ids("caf\xc3 \xff\xfelatte\xe2\x82"), ids("caf latte"); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: broken bytes are dropped like U+FFFD", got, want)
	}
}

// FuzzCountWordPieces checks what holds for every string: cutting at a space changes nothing, and no text panics.
func FuzzCountWordPieces(f *testing.F) {
	for _, s := range []string{"", "hello world", "日本 語", "a\u0301\u0323 b", "\xff \xfe", "\u1b44\U0001d165\u302e x"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if whole, parts := CountWordPieces(a+" "+b), CountWordPieces(a)+CountWordPieces(b)-2; whole != parts {
			t.Errorf("%q and %q: %d word pieces together, %d apart", a, b, whole, parts)
		}
	})
}
