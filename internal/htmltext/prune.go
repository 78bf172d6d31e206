package htmltext

import (
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// maxIndents is how many lists and quotations may lie in each other: each one is repeated before every line inside.
const maxIndents = 12

// dropped are elements that no reader of a page reads as its text.
var dropped = map[atom.Atom]bool{
	atom.Script: true, atom.Style: true, atom.Noscript: true, atom.Template: true, atom.Iframe: true, atom.Object: true, atom.Embed: true,
	atom.Svg: true, atom.Math: true, atom.Canvas: true, atom.Audio: true, atom.Video: true, atom.Map: true, atom.Nav: true, atom.Button: true,
	atom.Input: true, atom.Select: true, atom.Textarea: true, atom.Dialog: true, atom.Head: true, atom.Frameset: true,
}

// title returns the page's title.
func title(root *html.Node) string {
	var first, heading *html.Node
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if n.DataAtom == atom.Title && n.Namespace == "" && first == nil {
			first = n
		}
		if n.DataAtom == atom.H1 && heading == nil {
			heading = n
		}
	}
	for _, n := range []*html.Node{first, heading} {
		if n == nil {
			continue
		}
		if text := textOf(n); text != "" {
			return text
		}
	}
	return ""
}

// textOf returns an element's text on one line.
func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
			b.WriteByte(' ')
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// place is where in a page an element is.
type place struct {
	depth, indents int
	content        bool // inside <main>, <article> or <section>
}

// prune takes out of a page what is not its text, and bounds what is left, so that converting takes time in proportion.
func prune(root *html.Node) { pruneChildren(root, place{}) }

func pruneChildren(parent *html.Node, at place) {
	for n := parent.FirstChild; n != nil; {
		next := n.NextSibling
		switch {
		case n.Type == html.CommentNode || n.Type == html.ElementNode && drops(n, at):
			parent.RemoveChild(n)
		case n.Type == html.ElementNode && at.depth >= maxDepth:
			next = lift(parent, n)
		case n.Type == html.ElementNode:
			next = pruneElement(parent, n, at)
		}
		n = next
	}
	joinTexts(parent)
}

// joinTexts makes one of neighbouring texts, which the conversion would do one by one, copying all it has each time.
func joinTexts(parent *html.Node) {
	for n := parent.FirstChild; n != nil; n = n.NextSibling {
		if n.Type != html.TextNode || n.NextSibling == nil || n.NextSibling.Type != html.TextNode {
			continue
		}
		var b strings.Builder
		b.WriteString(n.Data)
		for n.NextSibling != nil && n.NextSibling.Type == html.TextNode {
			b.WriteString(n.NextSibling.Data)
			parent.RemoveChild(n.NextSibling)
		}
		n.Data = b.String()
	}
}

// pruneElement prunes below an element that stays, and returns its next sibling.
func pruneElement(parent, n *html.Node, at place) *html.Node {
	next := n.NextSibling
	at.depth++
	switch n.DataAtom {
	case atom.Main, atom.Article, atom.Section:
		at.content = true
	case atom.Ul, atom.Ol, atom.Blockquote:
		if at.indents++; at.indents > maxIndents {
			become(n, atom.Div)
		}
	case atom.Li:
		if at.indents > maxIndents {
			become(n, atom.Div)
		}
	case atom.A:
		dropURL(n, "href")
	case atom.Img:
		if dropURL(n, "src") {
			parent.InsertBefore(&html.Node{Type: html.TextNode, Data: attribute(n, "alt")}, n)
			parent.RemoveChild(n)
			return next
		}
	case atom.Table:
		if sparse(n) {
			flatten(n)
		}
	case atom.Td, atom.Th:
		for d := range n.Descendants() {
			if d.Type == html.TextNode {
				d.Data = strings.ReplaceAll(d.Data, "|", `\|`) // also in code: the table comes first
			}
		}
	}
	pruneChildren(n, at)
	return next
}

// drops reports whether an element is none of the page's text.
func drops(n *html.Node, at place) bool {
	if dropped[n.DataAtom] || n.Namespace != "" {
		return true
	}
	switch n.DataAtom {
	case atom.Footer:
		if !at.content {
			return true
		}
	case atom.Header:
		if !at.content && !holds(n, atom.H1) {
			return true
		}
	}
	for _, a := range n.Attr {
		switch a.Key {
		case "hidden":
			return true
		case "aria-hidden":
			if a.Val == "true" {
				return true
			}
		case "role":
			switch a.Val {
			case "navigation", "search", "menu", "menubar":
				return true
			case "banner", "contentinfo":
				return !at.content && !holds(n, atom.H1)
			}
		}
	}
	return false
}

func holds(n *html.Node, what atom.Atom) bool {
	for d := range n.Descendants() {
		if d.DataAtom == what {
			return true
		}
	}
	return false
}

// lift puts an element's children in its place, and returns the first of them, or else its next sibling.
func lift(parent, n *html.Node) *html.Node {
	next := n.NextSibling
	for c := n.FirstChild; c != nil; c = n.FirstChild {
		n.RemoveChild(c)
		parent.InsertBefore(c, n)
		if next == n.NextSibling {
			next = c
		}
	}
	// Two words that an element kept apart stay apart.
	space := &html.Node{Type: html.TextNode, Data: " "}
	parent.InsertBefore(space, n)
	if next == n.NextSibling {
		next = space
	}
	parent.RemoveChild(n)
	return next
}

func become(n *html.Node, what atom.Atom) {
	n.DataAtom, n.Data, n.Attr = what, what.String(), nil
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// dropURL takes an address away that leads nowhere, such as a script or the image itself, and reports whether it did.
func dropURL(n *html.Node, key string) bool {
	for i, a := range n.Attr {
		if a.Key != key {
			continue
		}
		address := strings.ToLower(strings.TrimSpace(a.Val[:min(len(a.Val), 64)]))
		if strings.HasPrefix(address, "data:") || strings.HasPrefix(address, "javascript:") {
			n.Attr = append(n.Attr[:i:i], n.Attr[i+1:]...)
			return true
		}
	}
	return false
}

// sparse reports whether a table would be far larger in Markdown, where each row has as many cells as the longest, than it is in HTML;
// nested tables are no tables there either.
func sparse(table *html.Node) bool {
	rows, columns, cells, row := 0, 0, 0, 0
	for n := range table.Descendants() {
		switch n.DataAtom {
		case atom.Table:
			return true
		case atom.Tr:
			rows++
			row = 0
		case atom.Td, atom.Th:
			cells++
			row += span(n, "colspan")
			columns = max(columns, row)
			rows += span(n, "rowspan") - 1
		}
	}
	return columns > 0 && rows > (4*cells+256)/columns
}

// span reads a cell's width or height.
func span(n *html.Node, key string) int {
	v, err := strconv.Atoi(strings.TrimSpace(attribute(n, key)))
	if err != nil || v < 1 {
		return 1
	}
	return min(v, 1<<16)
}

// flatten makes paragraphs of a table's rows.
func flatten(table *html.Node) {
	for n := range table.Descendants() {
		switch n.DataAtom {
		case atom.Tr, atom.Caption:
			become(n, atom.Div)
		case atom.Td, atom.Th:
			become(n, atom.Span)
			n.AppendChild(&html.Node{Type: html.TextNode, Data: " "})
		case atom.Tbody, atom.Thead, atom.Tfoot, atom.Colgroup, atom.Col:
			become(n, atom.Div)
		}
	}
	become(table, atom.Div)
}

// textAlone returns the text of a page whose elements lie too deeply in each other to be parsed.
func textAlone(page string) string {
	var b strings.Builder
	skip := atom.Atom(0)
	for z := html.NewTokenizer(strings.NewReader(page)); ; {
		switch z.Next() {
		case html.ErrorToken:
			return strings.TrimSpace(b.String())
		case html.TextToken:
			if skip == 0 {
				b.WriteString(strings.Join(strings.Fields(string(z.Text())), " "))
				b.WriteByte('\n')
			}
		case html.StartTagToken:
			name, _ := z.TagName()
			if a := atom.Lookup(name); skip == 0 && (a == atom.Script || a == atom.Style || a == atom.Title || a == atom.Textarea) {
				skip = a
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if skip != 0 && atom.Lookup(name) == skip {
				skip = 0
			}
		}
	}
}
