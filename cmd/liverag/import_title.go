package main

import (
	"regexp"
	"strings"

	"golang.org/x/net/html"

	"github.com/liverag/liverag/stream"
)

// titleOf finds a document's title: the first heading of Markdown (or the title of its front matter), the title of HTML (or its first heading), none for plain text.
func titleOf(contentType, text string) string {
	title := ""
	switch contentType {
	case stream.TextMarkdown:
		title = markdownTitle(strings.TrimPrefix(text, "\ufeff"))
	case stream.TextHTML:
		title = htmlTitle(text)
	}
	return cut(strings.Join(strings.Fields(plain(title)), " "), 300)
}

var (
	atxHeading = regexp.MustCompile(`^ {0,3}#{1,6}(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$`)
	underline  = regexp.MustCompile(`^ {0,3}(=+|-+)[ \t]*$`)
	fenceMark  = regexp.MustCompile("^ {0,3}(```+|~~~+)")
	// inlineLink is [text](target) or ![text](target).
	inlineLink = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
	// markup is what a heading is better shown without.
	markup = strings.NewReplacer("**", "", "__", "", "`", "")
)

func markdownTitle(text string) string {
	lines := strings.SplitSeq(text, "\n")
	front, number := false, 0
	fence, before := "", ""
	for line := range lines {
		line = strings.TrimRight(line, "\r")
		number++
		switch {
		case number == 1 && line == "---":
			front = true
			continue
		case front && (line == "---" || line == "..."):
			front = false
			continue
		case front:
			if title, ok := strings.CutPrefix(line, "title:"); ok {
				if title = strings.Trim(strings.TrimSpace(title), `"'`); title != "" {
					return title
				}
			}
			continue
		}
		if mark := fenceMark.FindStringSubmatch(line); mark != nil {
			switch {
			case fence == "":
				fence = mark[1]
			case strings.HasPrefix(mark[1], fence):
				fence = ""
			}
			before = ""
			continue
		}
		if fence != "" {
			continue
		}
		if heading := atxHeading.FindStringSubmatch(line); heading != nil {
			if heading[1] != "" {
				return plainHeading(heading[1])
			}
		} else if before != "" && underline.MatchString(line) {
			return plainHeading(before)
		}
		before = strings.TrimSpace(line)
		if strings.HasPrefix(before, ">") || strings.HasPrefix(before, "- ") || strings.HasPrefix(before, "* ") || strings.HasPrefix(before, "|") {
			before = "" // a rule below these is no underline
		}
	}
	return ""
}

func plainHeading(text string) string {
	return markup.Replace(inlineLink.ReplaceAllString(text, "$1"))
}

func htmlTitle(text string) string {
	z := html.NewTokenizer(strings.NewReader(text))
	heading, within := "", ""
	var b strings.Builder
	for {
		switch z.Next() {
		case html.ErrorToken:
			return heading
		case html.StartTagToken:
			name, _ := z.TagName()
			if tag := string(name); within == "" && (tag == "title" || tag == "h1" && heading == "") {
				within = tag
				b.Reset()
			} else if tag == "svg" {
				skipElement(z, "svg") // an image has titles of its own
			}
		case html.TextToken:
			if within != "" {
				b.Write(z.Text())
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if within == "" || string(name) != within {
				continue
			}
			found := strings.TrimSpace(html.UnescapeString(b.String()))
			if within == "title" && found != "" {
				return found
			}
			heading, within = found, ""
		}
	}
}

func skipElement(z *html.Tokenizer, tag string) {
	for depth := 1; depth > 0; {
		switch z.Next() {
		case html.ErrorToken:
			return
		case html.StartTagToken:
			if name, _ := z.TagName(); string(name) == tag {
				depth++
			}
		case html.EndTagToken:
			if name, _ := z.TagName(); string(name) == tag {
				depth--
			}
		}
	}
}
