// Package report writes a page of figures: one HTML file with tables and plots that needs nothing else. It has no script, and no font, image or style
// from outside; plots are SVG in the file. It follows the reader's light or dark scheme and the width of a phone.
//
// Every text is the caller's plain text and is escaped here, so a document with markup in it is shown, never run.
package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"strings"
)

//go:embed style.css
var style string

// Page is a report.
type Page struct {
	Title string
	// Lead is a sentence or two below the title: what was found.
	Lead string
	// Facts are what was measured, how and when, as pairs.
	Facts []Fact
	Parts []Part
}

// Fact is a name with its value.
type Fact struct{ Name, Value string }

// Part is one piece of a page: a [Section], [Text], [Figures], [Table], [Scatter], [Lines], [Histogram], [Pareto] or [Details].
type Part interface {
	write(b *bytes.Buffer)
}

// Section is a heading with what is below it. Plots that follow one another stand side by side where there is room.
type Section struct {
	Title string
	// Text is a paragraph below the heading; it may be empty.
	Text  string
	Parts []Part
}

// Text is a paragraph.
type Text string

// Figures are a row of large numbers.
type Figures []Figure

// Figure is a large number with its name, and a small note that may be empty.
type Figure struct{ Name, Value, Note string }

// Table is rows below a heading.
type Table struct {
	Columns []Column
	Rows    [][]Cell
}

// Column heads a table's column.
type Column struct {
	Name string
	// Number columns stand to the right.
	Number bool
}

// Cell is a table's.
type Cell struct {
	Text string
	Tone Tone
}

// Tone is how a text is meant.
type Tone string

// Tones. The zero Tone is neutral.
const (
	Good Tone = "good"
	Bad  Tone = "bad"
	Dim  Tone = "dim"
)

// Details are parts that a click opens.
type Details struct {
	Summary string
	Open    bool
	Parts   []Part
}

// Passages are texts in full, such as what was found for a question.
type Passages []Passage

// Passage is a text with a line above it.
type Passage struct {
	Head string
	Tone Tone
	Text string
}

// Columns puts parts side by side where there is room, such as two answers to a question.
type Columns [][]Part

// WriteTo writes the page.
func (p *Page) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	b.WriteString("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n")
	// Even if a text slipped through unescaped, nothing could run or be fetched.
	b.WriteString("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n")
	fmt.Fprintf(&b, "<title>%s</title>\n<style>\n%s</style>\n<body>\n<main>\n<h1>%s</h1>\n", text(p.Title), style, text(p.Title))
	if p.Lead != "" {
		fmt.Fprintf(&b, "<p class=\"lead\">%s</p>\n", text(p.Lead))
	}
	if len(p.Facts) > 0 {
		b.WriteString("<dl>\n")
		for _, f := range p.Facts {
			fmt.Fprintf(&b, "<div><dt>%s</dt><dd>%s</dd></div>\n", text(f.Name), text(f.Value))
		}
		b.WriteString("</dl>\n")
	}
	writeParts(&b, p.Parts)
	b.WriteString("</main>\n</body>\n</html>\n")
	return b.WriteTo(w)
}

// WriteFile writes the page to a file, which is there whole or not at all.
func (p *Page) WriteFile(name string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".report-*")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = p.WriteTo(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// text escapes a text for HTML. What HTML has no place for, such as a NUL or half a character, becomes U+FFFD.
func text(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '\ufffd'
		}
		return r
	}, s)
	return html.EscapeString(s)
}

// writeParts writes parts in order. Plots that follow one another share a grid.
func writeParts(b *bytes.Buffer, parts []Part) {
	grid := false
	for _, part := range parts {
		_, isPlot := part.(plot)
		if isPlot != grid {
			grid = isPlot
			if grid {
				b.WriteString("<div class=\"plots\">\n")
			} else {
				b.WriteString("</div>\n")
			}
		}
		part.write(b)
	}
	if grid {
		b.WriteString("</div>\n")
	}
}

func (s Section) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "<section>\n<h2>%s</h2>\n", text(s.Title))
	if s.Text != "" {
		Text(s.Text).write(b)
	}
	writeParts(b, s.Parts)
	b.WriteString("</section>\n")
}

func (t Text) write(b *bytes.Buffer) { fmt.Fprintf(b, "<p>%s</p>\n", text(string(t))) }

func (f Figures) write(b *bytes.Buffer) {
	b.WriteString("<div class=\"figures\">\n")
	for _, one := range f {
		fmt.Fprintf(b, "<div><span>%s</span><strong>%s</strong>", text(one.Name), text(one.Value))
		if one.Note != "" {
			fmt.Fprintf(b, "<small>%s</small>", text(one.Note))
		}
		b.WriteString("</div>\n")
	}
	b.WriteString("</div>\n")
}

func class(tone Tone, number bool) string {
	names := strings.TrimSpace(string(tone))
	if number {
		names = strings.TrimSpace(names + " n")
	}
	if names == "" {
		return ""
	}
	return fmt.Sprintf(" class=\"%s\"", text(names))
}

func (t Table) write(b *bytes.Buffer) {
	b.WriteString("<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>")
	for _, c := range t.Columns {
		fmt.Fprintf(b, "<th%s>%s</th>", class("", c.Number), text(c.Name))
	}
	b.WriteString("</tr></thead>\n<tbody>\n")
	for _, row := range t.Rows {
		b.WriteString("<tr>")
		for i, cell := range row {
			number := i < len(t.Columns) && t.Columns[i].Number
			fmt.Fprintf(b, "<td%s>%s</td>", class(cell.Tone, number), text(cell.Text))
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</tbody>\n</table></div>\n")
}

func (d Details) write(b *bytes.Buffer) {
	open := ""
	if d.Open {
		open = " open"
	}
	fmt.Fprintf(b, "<details%s>\n<summary>%s</summary>\n", open, text(d.Summary))
	writeParts(b, d.Parts)
	b.WriteString("</details>\n")
}

func (p Passages) write(b *bytes.Buffer) {
	b.WriteString("<ol class=\"passages\">\n")
	for _, one := range p {
		fmt.Fprintf(b, "<li><div%s>%s</div>", class(one.Tone, false), text(one.Head))
		if one.Text != "" {
			fmt.Fprintf(b, "<blockquote>%s</blockquote>", text(one.Text))
		}
		b.WriteString("</li>\n")
	}
	b.WriteString("</ol>\n")
}

func (c Columns) write(b *bytes.Buffer) {
	b.WriteString("<div class=\"columns\">\n")
	for _, parts := range c {
		b.WriteString("<div>\n")
		writeParts(b, parts)
		b.WriteString("</div>\n")
	}
	b.WriteString("</div>\n")
}
