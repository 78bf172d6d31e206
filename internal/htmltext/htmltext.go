// Package htmltext turns HTML pages into Markdown: what a reader of the page would read, without scripts, styles and navigation.
//
// The Markdown becomes the document's text, so it has to be the same on every machine and from run to run; [Version] says which
// conversion it was.
package htmltext

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/JohannesKaufmann/html-to-markdown/v2/converter"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/base"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/commonmark"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/strikethrough"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/table"
	"golang.org/x/net/html"
)

// Version names the conversion: equal versions turn equal HTML into equal Markdown. Whoever changes what [Convert] returns, be it by
// another version of a module it uses, changes it too.
const Version = "html-to-markdown/2.5.2+1"

// Page is a converted page.
type Page struct {
	// Title is the page's <title>, or else its first <h1>; "" when it has neither.
	Title string
	// Markdown is the page's text, with ATX headings, fenced code and tables. It has no white space at either end.
	Markdown string
}

// errDeep is how the parser ends on elements that lie too deeply in each other for it.
const errDeep = "open stack of elements exceeds"

// maxDepth is how deep elements may lie in each other. Below it tags are dropped and their text is kept: nothing that is written by hand or
// for readers is nested so deeply, and the conversion costs time and stack by the level.
const maxDepth = 100

// ErrNotConverted wraps what went wrong with a page that can't be converted.
var ErrNotConverted = errors.New("html not converted")

// conversion is shared: it has no state between pages. It escapes nothing: the Markdown is searched and embedded, where snake\_case is
// another word than snake_case, and finding out what needs it takes quadratic time on a page of nothing but marks.
var conversion = sync.OnceValue(func() *converter.Converter {
	c := converter.NewConverter(converter.WithEscapeMode(converter.EscapeModeDisabled), converter.WithPlugins(
		base.NewBasePlugin(),
		commonmark.NewCommonmarkPlugin(commonmark.WithListEndComment(false), commonmark.WithLinkEmptyHrefBehavior(commonmark.LinkBehaviorSkip)),
		strikethrough.NewStrikethroughPlugin(),
		table.NewTablePlugin(table.WithCellPaddingBehavior(table.CellPaddingBehaviorMinimal), table.WithHeaderPromotion(true), table.WithSkipEmptyRows(true)),
	))
	// The base plugin writes &lt; and &gt; for < and >. Readers of the text search for what the page showed, so they are put back; what
	// the page showed as &lt; is set apart meanwhile by a NUL, which the parser lets through nowhere.
	apart := strings.NewReplacer("&lt;", "&\x00lt;", "&gt;", "&\x00gt;")
	back := strings.NewReplacer("&lt;", "<", "&gt;", ">", "&\x00", "&")
	c.Register.TextTransformer(func(_ converter.Context, text string) string { return apart.Replace(text) }, converter.PriorityEarly)
	c.Register.TextTransformer(func(_ converter.Context, text string) string { return back.Replace(text) }, converter.PriorityLate)
	// The module's own headings end "C#" in an escape that overwrites the C when there are no escapes.
	for level := 1; level <= 6; level++ {
		c.Register.RendererFor(fmt.Sprintf("h%d", level), converter.TagTypeBlock, heading(level), converter.PriorityEarly)
	}
	return c
})

// heading writes an ATX heading of that level.
func heading(level int) converter.HandleRenderFunc {
	return func(ctx converter.Context, w converter.Writer, n *html.Node) converter.RenderStatus {
		var b bytes.Buffer
		ctx.RenderChildNodes(ctx, &b, n)
		if words := bytes.Fields(b.Bytes()); len(words) > 0 {
			w.WriteString("\n\n" + strings.Repeat("#", level) + " ")
			w.Write(bytes.Join(words, []byte(" ")))
			w.WriteString("\n\n")
		}
		return converter.RenderSuccess
	}
}

// Convert turns a page, or a part of one, into Markdown. Broken HTML is read as browsers read it; the error of one that even so can't be
// converted wraps [ErrNotConverted]. It never panics.
func Convert(page string) (out Page, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = Page{}, fmt.Errorf("%w: %v", ErrNotConverted, p)
		}
	}()
	page = strings.ToValidUTF8(page, "\ufffd")
	root, err := html.Parse(strings.NewReader(page))
	if err != nil && strings.Contains(err.Error(), errDeep) {
		return Page{Markdown: textAlone(page)}, nil
	}
	if err != nil {
		return Page{}, fmt.Errorf("%w: %w", ErrNotConverted, err)
	}
	out.Title = title(root)
	prune(root)
	markdown, err := conversion().ConvertNode(root)
	if err != nil {
		return Page{}, fmt.Errorf("%w: %w", ErrNotConverted, err)
	}
	out.Markdown = strings.TrimSpace(string(markdown))
	return out, nil
}
