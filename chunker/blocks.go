package chunker

import "strings"

// kind is what a block of Markdown is.
type kind uint8

const (
	prose   kind = iota // a paragraph, indented code, a quotation: what has no rule of its own
	heading             // ATX or setext
	fence               // fenced code
	table
	list // with everything that is indented below its items
	raw  // front matter, an HTML comment, <pre>, <script>, <style>
)

// block is a stretch of whole lines, without the blank lines around it.
type block struct {
	start, end int
	kind       kind
	level      int    // of a heading, 1 to 6
	title      string // of a heading
}

// blockReader reads a text's blocks, line by line. It follows CommonMark and GitHub's tables as far as it matters for
// cutting: which lines are headings, and what belongs together. It never fails: any text is some Markdown.
type blockReader struct {
	text string
	at   int // start of the next line
}

// line is a line without its end; next is where the following one starts.
type line struct {
	start, next int
	text        string // without \r\n
	indent      int    // columns of white space, a tab counting to the next multiple of four
	body        string // text without white space at either end
}

func (b *blockReader) peek(at int) (line, bool) {
	if at >= len(b.text) {
		return line{}, false
	}
	l := line{start: at, next: len(b.text), text: b.text[at:]}
	if i := strings.IndexByte(l.text, '\n'); i >= 0 {
		l.text, l.next = l.text[:i], at+i+1
	}
	i := 0
	for ; i < len(l.text); i++ {
		if l.text[i] == ' ' {
			l.indent++
		} else if l.text[i] == '\t' {
			l.indent += 4 - l.indent%4
		} else {
			break
		}
	}
	l.body = strings.TrimRight(l.text[i:], " \t\r")
	return l, true
}

// next returns the next block; false at the end.
func (b *blockReader) next() (block, bool) {
	for {
		l, ok := b.peek(b.at)
		if !ok {
			return block{}, false
		}
		if l.body == "" {
			b.at = l.next
			continue
		}
		return b.read(l), true
	}
}

// read reads the block that starts with this line.
func (b *blockReader) read(l line) block {
	if l.start == 0 && l.body == "---" && l.indent == 0 {
		if end, ok := b.frontMatter(l.next); ok {
			return b.done(l.start, end, raw)
		}
	}
	if level, title, ok := atx(l); ok {
		out := b.done(l.start, l.next, heading)
		out.level, out.title = level, title
		return out
	}
	if mark, n := fenceMark(l); n > 0 && l.indent <= 3 {
		return b.done(l.start, b.fenceEnd(l.next, mark, n, 0), fence)
	}
	if until := rawEnd(l); until != "" {
		return b.done(l.start, b.lineWith(l.start, until), raw)
	}
	if rule(l) {
		return b.done(l.start, l.next, prose)
	}
	if listItem(l) && l.indent <= 3 {
		return b.done(l.start, b.listEnd(l), list)
	}
	if b.tableAt(l) {
		return b.done(l.start, b.tableEnd(l), table)
	}
	return b.prose(l)
}

// done makes the block text[start:end], without the last line's end, and goes on behind it.
func (b *blockReader) done(start, end int, k kind) block {
	b.at = end
	return block{start: start, end: start + len(strings.TrimRight(b.text[start:end], " \t\r\n")), kind: k}
}

// prose reads lines up to a blank one or to another kind of block. Underlined, they are a heading.
func (b *blockReader) prose(first line) block {
	for at := first.next; ; {
		l, ok := b.peek(at)
		if !ok || l.body == "" {
			return b.done(first.start, at, prose)
		}
		if level := underline(l); level > 0 && first.indent <= 3 {
			out := b.done(first.start, l.next, heading)
			out.level, out.title = level, strings.Join(strings.Fields(b.text[first.start:at]), " ")
			return out
		}
		if b.interrupts(l) {
			return b.done(first.start, at, prose)
		}
		at = l.next
	}
}

// interrupts reports whether a line ends the paragraph before it.
func (b *blockReader) interrupts(l line) bool {
	if _, _, ok := atx(l); ok {
		return true
	}
	if _, n := fenceMark(l); n > 0 && l.indent <= 3 {
		return true
	}
	return rawEnd(l) != "" || rule(l) || listItem(l) && l.indent <= 3 || b.tableAt(l)
}

// atx reads a heading of the form "## Title ##".
func atx(l line) (level int, title string, ok bool) {
	if l.indent > 3 || l.body == "" || l.body[0] != '#' {
		return 0, "", false
	}
	rest := strings.TrimLeft(l.body, "#")
	level = len(l.body) - len(rest)
	if level > 6 || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return 0, "", false
	}
	title = strings.Trim(rest, " \t")
	if cut := strings.TrimRight(title, "#"); cut == "" || strings.HasSuffix(cut, " ") || strings.HasSuffix(cut, "\t") {
		title = strings.TrimRight(cut, " \t")
	}
	return level, title, true
}

// underline returns the level of the setext heading that the line makes of the paragraph above it, or 0.
func underline(l line) int {
	switch {
	case l.indent > 3:
	case strings.Trim(l.body, "=") == "":
		return 1
	case strings.Trim(l.body, "-") == "":
		return 2
	}
	return 0
}

// fenceMark returns the character of a code fence and how many there are, or 0.
func fenceMark(l line) (byte, int) {
	if l.body == "" || l.body[0] != '`' && l.body[0] != '~' {
		return 0, 0
	}
	mark := l.body[0]
	n := 1
	for n < len(l.body) && l.body[n] == mark {
		n++
	}
	if n < 3 || mark == '`' && strings.IndexByte(l.body[n:], '`') >= 0 {
		return 0, 0
	}
	return mark, n
}

// fenceEnd returns the start of the line behind a fence's closing line. An open fence goes on to the text's end, or to the first line
// that is indented less than what the fence stands in.
func (b *blockReader) fenceEnd(at int, mark byte, n, indent int) int {
	for {
		l, ok := b.peek(at)
		if !ok {
			return len(b.text)
		}
		if l.body != "" && l.indent < indent {
			return at
		}
		at = l.next
		if m, k := fenceMark(l); m == mark && k >= n && k == len(l.body) {
			return at
		}
	}
}

// frontMatter returns the start of the line behind the one that closes the metadata at the head of a text.
func (b *blockReader) frontMatter(at int) (int, bool) {
	for {
		l, ok := b.peek(at)
		if !ok {
			return 0, false
		}
		at = l.next
		if l.indent == 0 && (l.body == "---" || l.body == "...") {
			return at, true
		}
	}
}

// rawEnd returns what ends the HTML that the line begins, when everything up to there is to be left alone, or "".
func rawEnd(l line) string {
	if l.indent > 3 || len(l.body) < 4 || l.body[0] != '<' {
		return ""
	}
	if strings.HasPrefix(l.body, "<!--") {
		return "-->"
	}
	for _, tag := range [...]string{"pre", "script", "style"} {
		if len(l.body) > len(tag) && strings.EqualFold(l.body[1:1+len(tag)], tag) {
			if rest := l.body[1+len(tag):]; rest == "" || strings.IndexByte(" \t>", rest[0]) >= 0 {
				return "</" + tag + ">"
			}
		}
	}
	return ""
}

// lineWith returns the start of the line behind the first one, from at on, that has this in it, in lower case or in capitals.
func (b *blockReader) lineWith(at int, what string) int {
	capitals := strings.ToUpper(what)
	for {
		l, ok := b.peek(at)
		if !ok {
			return len(b.text)
		}
		at = l.next
		if strings.Contains(l.body, what) || strings.Contains(l.body, capitals) {
			return at
		}
	}
}

// rule reports whether the line is a horizontal rule: three or more of one of -, * and _.
func rule(l line) bool {
	if l.indent > 3 || len(l.body) < 3 {
		return false
	}
	mark := l.body[:1]
	return strings.Trim(l.body, mark+" \t") == "" && strings.Count(l.body, mark) >= 3 && (mark == "-" || mark == "*" || mark == "_")
}

// listItem reports whether the line begins an item: "- ", "* ", "+ ", "1. ", "1) ".
func listItem(l line) bool {
	if l.body == "" {
		return false
	}
	i := 0
	switch c := l.body[0]; {
	case c == '-' || c == '*' || c == '+':
		i = 1
	case c >= '0' && c <= '9':
		for i < len(l.body) && i < 9 && l.body[i] >= '0' && l.body[i] <= '9' {
			i++
		}
		if i == len(l.body) || l.body[i] != '.' && l.body[i] != ')' {
			return false
		}
		i++
	default:
		return false
	}
	return i == len(l.body) || l.body[i] == ' ' || l.body[i] == '\t'
}

// listEnd returns where the list ends that begins with this line. Blank lines belong to it when an item or something indented follows;
// code fences below an item too, with all that is in them.
func (b *blockReader) listEnd(first line) int {
	end, blank := first.next, false
	for at := first.next; ; {
		l, ok := b.peek(at)
		if !ok {
			return end
		}
		if l.body == "" {
			blank = true
			at = l.next
			continue
		}
		if _, _, ok := atx(l); ok {
			return end
		}
		mark, n := fenceMark(l)
		if l.indent < 2 && (blank && !listItem(l) || rule(l) || n > 0 || rawEnd(l) != "" || b.tableAt(l)) {
			return end
		}
		blank = false
		at = l.next
		if n > 0 {
			at = b.fenceEnd(at, mark, n, 2)
		}
		end = at
	}
}

// tableAt reports whether the line is the head of a table: the line below it draws the columns.
func (b *blockReader) tableAt(l line) bool {
	if l.indent > 3 || strings.IndexByte(l.body, '|') < 0 {
		return false
	}
	rule, ok := b.peek(l.next)
	return ok && rule.indent <= 3 && strings.IndexByte(rule.body, '-') >= 0 && strings.IndexByte(rule.body, '|') >= 0 && strings.Trim(rule.body, "|-: \t") == ""
}

// tableEnd returns where the table ends that begins with this line.
func (b *blockReader) tableEnd(first line) int {
	for at := first.next; ; {
		l, ok := b.peek(at)
		if !ok || l.body == "" || strings.IndexByte(l.body, '|') < 0 {
			return at
		}
		at = l.next
	}
}
