package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/liverag/liverag/internal/spell"
)

// terminal writes for a person, from any goroutine: with colour and redrawn lines only where somebody watches.
type terminal struct {
	io.Writer
	// Watched tells that the writer is a terminal, so that a line may be redrawn.
	Watched bool
	// Colour tells that colours may be used: a terminal, and no NO_COLOR.
	Colour bool
	// Width is the number of columns.
	Width int

	mu    sync.Mutex
	drawn bool // a status line is on the screen
}

func newTerminal(w io.Writer, environ []string) *terminal {
	t := &terminal{Writer: w, Width: 100}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return t
	}
	t.Watched = true
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width >= 40 {
		t.Width = min(width, 120)
	}
	t.Colour = !slices.ContainsFunc(environ, func(pair string) bool {
		name, value, _ := strings.Cut(pair, "=")
		return name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb"
	})
	return t
}

// Printf writes formatted text, above the status line if one is drawn.
func (t *terminal) Printf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
	fmt.Fprintf(t.Writer, format, args...)
}

// JSON writes a value as one line.
func (t *terminal) JSON(v any) error {
	enc := json.NewEncoder(t.Writer)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Status draws a line that the next Status or Printf takes away again; it does nothing where nobody watches.
func (t *terminal) Status(format string, args ...any) {
	if !t.Watched {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
	fmt.Fprint(t.Writer, cut(fmt.Sprintf(format, args...), t.Width-1))
	t.drawn = true
}

// clearStatus takes the status line away.
func (t *terminal) clearStatus() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
}

// clear is clearStatus under the lock.
func (t *terminal) clear() {
	if t.drawn {
		fmt.Fprint(t.Writer, "\r\x1b[K")
		t.drawn = false
	}
}

func (t *terminal) style(code, text string) string {
	if !t.Colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (t *terminal) bold(text string) string { return t.style("1", text) }
func (t *terminal) dim(text string) string  { return t.style("2", text) }
func (t *terminal) good(text string) string { return t.style("32", text) }
func (t *terminal) warn(text string) string { return t.style("33", text) }
func (t *terminal) bad(text string) string  { return t.style("31", text) }

// table prints rows under a header, columns aligned. Cells hold no colours.
func (t *terminal) table(header []string, rows [][]string) {
	width := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	line := func(row []string) string {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		return strings.TrimRight(b.String(), " ")
	}
	t.Printf("%s\n", t.dim(line(header)))
	for _, row := range rows {
		t.Printf("%s\n", line(row))
	}
}

// wrap breaks text at spaces into lines of at most width columns; a longer word gets a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	line, columns := "", 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if line != "" && columns+1+n > width {
			lines = append(lines, line)
			line, columns = "", 0
		}
		if line != "" {
			line += " "
			columns++
		}
		line += word
		columns += n
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// cut shortens text to n columns, with an ellipsis for what is left out.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:max(n-1, 0)]) + "…"
}

// plain takes control characters out of what came from a document or a server, so that it can't drive the terminal.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

// count spells a number with its noun: 1 document, 12,345 documents, 2 copies, 3 days.
func count[N ~int | ~int32 | ~int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "y") && !strings.HasSuffix(noun, "ay") {
		return spell.Thousands(n) + " " + strings.TrimSuffix(noun, "y") + "ies"
	}
	return spell.Thousands(n) + " " + noun + "s"
}

// short rounds a duration to about three digits.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + short(-d)
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
