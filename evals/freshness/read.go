package freshness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"
	"time"

	"github.com/liverag/liverag/stream"
)

// Change is one step of a stream: one document written or deleted, or, for a rename, one of each.
type Change struct {
	// Seq is its place in the stream, to which probes refer.
	Seq int64
	// Time is when it happened at its origin; zero if the stream does not say.
	Time time.Time
	Ops  []Op
}

// Op writes or deletes one document.
type Op struct {
	Key string
	// Document is nil for a deletion.
	Document *stream.Document
}

// Probe is a text with the one stretch of the stream in which a live document holds it.
type Probe struct {
	// Text is what to ask; Raw is the same as the document spells it.
	Text string `json:"text"`
	Raw  string `json:"raw"`
	// From is the change that brings it; To the one that takes it away, nil if none does.
	From int64  `json:"from_seq"`
	To   *int64 `json:"to_seq"`
}

// maxLine bounds one line of a stream or of probes.
const maxLine = 64 << 20

// lines reads what is on each line that is not blank, with its number.
func lines(r io.Reader) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		s := bufio.NewScanner(r)
		s.Buffer(make([]byte, 0, 64<<10), maxLine)
		for n := 1; s.Scan(); n++ {
			if line := bytes.TrimSpace(s.Bytes()); len(line) > 0 && !yield(n, line) {
				return
			}
		}
		if err := s.Err(); err != nil {
			yield(0, nil)
		}
	}
}

// recorded is a line of a recorded stream.
type recorded struct {
	Seq     *int64    `json:"seq"`
	Time    time.Time `json:"ts"`
	Op      string    `json:"op"`
	Key     string    `json:"key"`
	OldKey  string    `json:"old_key"`
	Content *string   `json:"content"`
}

// ReadChanges reads a stream of changes, a JSON object a line: either a recorded history, with seq, ts, op (add, modify, delete or rename), key, old_key
// and content; or documents as an import takes them, with their id, or {"id":…,"deleted":true}. The form of the first line is that of all. It stops at the
// first bad line. name is what errors call the input. maxBytes bounds a document's text, 0 does not.
func ReadChanges(r io.Reader, name string, maxBytes int) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		seq, last, history := int64(0), int64(-1), false
		for n, line := range lines(r) {
			if line == nil {
				yield(Change{}, fmt.Errorf("%s: a line is longer than %d MiB, or it can't be read", name, maxLine>>20))
				return
			}
			if seq == 0 && last < 0 {
				var form struct {
					Op string `json:"op"`
				}
				history = json.Unmarshal(line, &form) == nil && form.Op != ""
			}
			c, err := Change{}, error(nil)
			if history {
				c, err = readRecorded(line)
			} else {
				c, err = readDocument(line, seq, maxBytes)
			}
			if err == nil && c.Seq <= last {
				err = fmt.Errorf("seq %d does not follow %d", c.Seq, last)
			}
			if err != nil {
				yield(Change{}, fmt.Errorf("%s, line %d: %w", name, n, err))
				return
			}
			last = c.Seq
			seq++
			if !yield(c, nil) {
				return
			}
		}
	}
}

func readRecorded(line []byte) (Change, error) {
	var r recorded
	if err := json.Unmarshal(line, &r); err != nil {
		return Change{}, err
	}
	switch {
	case r.Seq == nil:
		return Change{}, errors.New(`no "seq"`)
	case r.Key == "":
		return Change{}, errors.New(`no "key"`)
	case r.Op != "delete" && r.Content == nil:
		return Change{}, fmt.Errorf(`%s without "content"`, r.Op)
	}
	c := Change{Seq: *r.Seq, Time: r.Time}
	switch r.Op {
	case "rename":
		if r.OldKey == "" {
			return Change{}, errors.New(`rename without "old_key"`)
		}
		c.Ops = append(c.Ops, Op{Key: r.OldKey})
		fallthrough
	case "add", "modify":
		c.Ops = append(c.Ops, Op{Key: r.Key, Document: &stream.Document{Text: *r.Content, ContentType: contentType(r.Key)}})
	case "delete":
		c.Ops = append(c.Ops, Op{Key: r.Key})
	default:
		return Change{}, fmt.Errorf("op %q is none of add, modify, delete, rename", r.Op)
	}
	return c, nil
}

// contentType follows from a recorded key's ending, as for files.
func contentType(key string) string {
	switch strings.ToLower(path.Ext(key)) {
	case ".html", ".htm":
		return stream.TextHTML
	case ".md", ".markdown":
		return stream.TextMarkdown
	}
	return stream.TextPlain
}

func readDocument(line []byte, seq int64, maxBytes int) (Change, error) {
	d, problem := stream.DecodeLine(line, maxBytes)
	if problem != nil {
		return Change{}, problem
	}
	if d.Tenant != "" || d.Document != nil && d.Document.ACL != nil {
		return Change{}, errors.New("a document with a tenant or an access list is not returned to everybody, so it can't be measured")
	}
	c := Change{Seq: seq, Ops: []Op{{Key: d.ID, Document: d.Document}}}
	if d.Document != nil {
		c.Time = d.Document.UpdatedAt
	}
	return c, nil
}

// ReadProbes reads probes, a JSON object a line: text, raw, from_seq, and to_seq or null.
func ReadProbes(r io.Reader, name string) ([]Probe, error) {
	var probes []Probe
	for n, line := range lines(r) {
		if line == nil {
			return nil, fmt.Errorf("%s: a line is longer than %d MiB, or it can't be read", name, maxLine>>20)
		}
		var p struct {
			Probe
			From *int64 `json:"from_seq"`
		}
		err := json.Unmarshal(line, &p)
		switch {
		case err != nil:
		case p.From == nil:
			err = errors.New(`no "from_seq"`)
		case p.Text == "":
			err = errors.New(`no "text"`)
		}
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", name, n, err)
		}
		p.Probe.From = *p.From
		if p.Raw == "" {
			p.Raw = p.Text
		}
		probes = append(probes, p.Probe)
	}
	return probes, nil
}
