package retrieve

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/liverag/liverag/vectordb"
)

// The JSON of answers is appended by hand: at thousands of queries a second on a few cores, reflection is what a query would spend most on besides the search.

// AppendJSON appends the answer as POST /retrieve sends it.
func (a *Answer) AppendJSON(b []byte) []byte {
	b = append(b, `{"hits":[`...)
	for i := range a.Hits {
		if i > 0 {
			b = append(b, ',')
		}
		b = a.Hits[i].appendJSON(b)
	}
	b = append(b, `],"mode":`...)
	b = appendString(b, string(a.Mode))
	if d := a.Degraded; d != nil {
		b = append(b, `,"degraded":{"code":`...)
		b = appendString(b, d.Code)
		b = append(b, `,"detail":`...)
		b = appendString(b, d.Detail)
		b = append(b, '}')
	}
	b = append(b, `,"generation":{"name":`...)
	b = appendString(b, a.Target.Name)
	if a.Target.Alias != "" {
		b = append(b, `,"alias":`...)
		b = appendString(b, a.Target.Alias)
	}
	b = append(b, `,"recipe":`...)
	b = appendRecipe(b, a.Target.Recipe)
	if a.Freshness.AsOf.IsZero() {
		// Nothing is known yet, and no time would be true.
		b = append(b, `},"freshness":{"as_of":null,"lag":null`...)
	} else {
		b = append(b, `},"freshness":{"as_of":`...)
		b = appendTime(b, a.Freshness.AsOf)
		b = append(b, `,"lag":`...)
		b = appendDuration(b, a.Freshness.Lag)
	}
	b = append(b, `,"pending":`...)
	b = strconv.AppendInt(b, int64(a.Freshness.Pending), 10)
	b = append(b, `,"satisfied":`...)
	b = strconv.AppendBool(b, a.Satisfied)
	b = append(b, `},"took":{"total":`...)
	b = appendDuration(b, a.Took.Total)
	if a.Took.Wait > 0 {
		b = append(b, `,"wait":`...)
		b = appendDuration(b, a.Took.Wait)
	}
	b = append(b, `,"embed":`...)
	b = appendDuration(b, a.Took.Embed)
	b = append(b, `,"search":`...)
	b = appendDuration(b, a.Took.Search)
	b = append(b, '}')
	if len(a.Hits) > 0 && a.Hits[0].Explain != nil && a.fusion != "" {
		b = append(b, `,"fusion":`...)
		b = appendString(b, a.fusion)
	}
	return append(b, '}')
}

func (h *Hit) appendJSON(b []byte) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, h.ID)
	b = append(b, `,"document":`...)
	b = appendString(b, vectordb.DocumentID(h.Key))
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, h.Version, 10)
	b = append(b, `,"text":`...)
	b = appendString(b, h.Text)
	b = append(b, `,"start":`...)
	b = strconv.AppendInt(b, int64(h.Entry.Start), 10)
	b = append(b, `,"end":`...)
	b = strconv.AppendInt(b, int64(h.Entry.End), 10)
	b = append(b, `,"score":`...)
	b = appendNumber(b, h.Score)
	b = appendAbout(b, &h.Revision)
	if e := h.Explain; e != nil {
		b = append(b, `,"explain":{`...)
		n := len(b)
		b = appendRank(b, n, "dense", e.Dense)
		b = appendRank(b, n, "lexical", e.Lexical)
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendRank(b []byte, first int, leg string, r *LegRank) []byte {
	if r == nil {
		return b
	}
	if len(b) > first {
		b = append(b, ',')
	}
	b = appendString(b, leg)
	b = append(b, `:{"rank":`...)
	b = strconv.AppendInt(b, int64(r.Rank), 10)
	b = append(b, `,"score":`...)
	b = appendNumber(b, r.Score)
	return append(b, '}')
}

// appendAbout appends what a document says of itself, as further members of an object.
func appendAbout(b []byte, r *vectordb.Revision) []byte {
	b = append(b, `,"title":`...)
	b = appendString(b, r.Title)
	b = append(b, `,"url":`...)
	b = appendString(b, r.URL)
	b = append(b, `,"metadata":`...)
	b = appendMetadata(b, r.Metadata)
	b = append(b, `,"updated_at":`...)
	b = appendTime(b, r.UpdatedAt)
	b = append(b, `,"searchable_at":`...)
	return appendTime(b, r.SearchableAt)
}

// appendDocument appends a revision as GET /documents/{id} sends it.
func appendDocument(b []byte, r *vectordb.Revision, generation string, pending *Pending) []byte {
	id := vectordb.DocumentID(r.Key)
	b = append(b, `{"id":`...)
	b = appendString(b, id)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, r.Version, 10)
	b = append(b, `,"content_type":`...)
	b = appendString(b, r.ContentType)
	b = appendAbout(b, r)
	b = append(b, `,"generation":`...)
	b = appendString(b, generation)
	if pending != nil {
		b = append(b, `,"pending":{"version":`...)
		b = strconv.AppendInt(b, pending.Version, 10)
		for _, member := range [][2]string{{"code", pending.Code}, {"detail", pending.Detail}, {"dead_letter", pending.DeadLetter}} {
			b = append(b, ',', '"')
			b = append(append(b, member[0]...), '"', ':')
			b = appendString(b, member[1])
		}
		b = append(b, '}')
	}
	b = append(b, `,"text":`...)
	b = appendString(b, r.Text)
	b = append(b, `,"chunks":[`...)
	repeats := make(map[vectordb.Hash]int, len(r.Entries))
	for i := range r.Entries {
		e := &r.Entries[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":`...)
		b = appendString(b, vectordb.EntryID(id, e.Hash, repeats[e.Hash]))
		repeats[e.Hash]++
		b = append(b, `,"start":`...)
		b = strconv.AppendInt(b, int64(e.Start), 10)
		b = append(b, `,"end":`...)
		b = strconv.AppendInt(b, int64(e.End), 10)
		b = append(b, `,"tokens":`...)
		b = strconv.AppendInt(b, int64(e.Tokens), 10)
		b = append(b, `,"text":`...)
		b = appendString(b, r.Text[e.Start:e.End])
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

func appendRecipe(b []byte, r vectordb.Recipe) []byte {
	b = append(b, `{"chunker":{"strategy":`...)
	b = appendString(b, r.Chunker.Strategy)
	b = append(b, `,"tokens":`...)
	b = strconv.AppendInt(b, int64(r.Chunker.Tokens), 10)
	b = append(b, `,"overlap":`...)
	b = strconv.AppendInt(b, int64(r.Chunker.Overlap), 10)
	b = append(b, `,"tokenizer":`...)
	b = appendString(b, r.Chunker.Tokenizer)
	b = append(b, `},"embedder":{"model":`...)
	b = appendString(b, r.Embedder.Model)
	b = append(b, `,"long":`...)
	b = appendString(b, r.Embedder.Long)
	return append(b, `}}`...)
}

func appendMetadata(b []byte, m map[string]any) []byte {
	b = append(b, '{')
	var few [16]string
	names := few[:0]
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		switch v := m[name].(type) {
		case string:
			b = appendString(b, v)
		case float64:
			b = appendNumber(b, v)
		case bool:
			b = strconv.AppendBool(b, v)
		case []string:
			b = append(b, '[')
			for i, s := range v {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendString(b, s)
			}
			b = append(b, ']')
		default: // no store returns anything else
			other, err := json.Marshal(v)
			if err != nil {
				other = []byte("null")
			}
			b = append(b, other...)
		}
	}
	return append(b, '}')
}

// appendNumber appends a number in the shortest form that reads back the same. JSON has no NaN and no infinity.
func appendNumber(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, 64)
}

func number(f float64) string { return string(appendNumber(nil, f)) }

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// appendDuration appends a duration with as many digits as a reader can use: "4.1ms", "38ms", "870µs".
func appendDuration(b []byte, d time.Duration) []byte {
	switch {
	case d >= time.Minute || d <= -time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second || d <= -time.Second:
		d = d.Round(10 * time.Millisecond)
	case d >= 10*time.Millisecond || d <= -10*time.Millisecond:
		d = d.Round(time.Millisecond)
	case d >= time.Millisecond || d <= -time.Millisecond:
		d = d.Round(100 * time.Microsecond)
	default:
		d = d.Round(time.Microsecond)
	}
	b = append(b, '"')
	b = append(b, d.String()...)
	return append(b, '"')
}

const hexDigits = "0123456789abcdef"

// plain tells which ASCII bytes stand for themselves in a JSON string. <, > and & do not: an answer that is pasted into a web page must not end its script.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, s[start:i]...)
			b = append(b, "\ufffd"...)
			start = i + n
		case r == '\u2028' || r == '\u2029': // line ends in JavaScript, not in JSON
			b = append(b, s[start:i]...)
			b = append(b, '\\', 'u', '2', '0', '2', hexDigits[r&15])
			start = i + n
		}
		i += n
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
