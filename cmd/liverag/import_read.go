package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/stream"
)

// reader turns paths into lines of POST /documents. It holds one file at a time, and one line of NDJSON.
type reader struct {
	prefix  string
	filter  *fileFilter
	in      io.Reader
	maxText int64
	maxLine int
	skips   *skips
	// read counts the bytes of the sources, or the commits of a history, for progress.
	read atomic.Int64
	// ids knows where each id came from, if there are many paths: two files with one id would overwrite each other silently.
	many bool
	ids  map[string]string
	// known is what a watcher has to know of the files imported, by their path; nil if nobody watches.
	known *knownFiles
}

// errSkip is a file that is left out, and why.
type errSkip struct{ reason string }

func (e *errSkip) Error() string { return e.reason }

// Reasons for leaving a file out.
const (
	skipHidden     = "hidden"
	skipExcluded   = "excluded"
	skipPDF        = "PDF"
	skipImage      = "image"
	skipKind       = "of another kind"
	skipBinary     = "binary"
	skipUTF8       = "not valid UTF-8"
	skipTooLarge   = "over the limit"
	skipUnreadable = "unreadable"
	skipLink       = "link to a folder"
	skipID         = "path can't be an id"
	skipTwice      = "id of another file"
	skipSpecial    = "no regular file"
	skipSymlink    = "symbolic link"
	skipSubmodule  = "submodule"
)

// each calls do for every document of the paths, with its line and where it is from.
func (r *reader) each(ctx context.Context, paths []string, do func(line []byte, where string) error) error {
	for _, p := range paths {
		var err error
		info, statErr := os.Stat(p)
		switch {
		case p == "-":
			err = r.ndjson(ctx, r.in, "-", do)
		case statErr != nil:
			err = fmt.Errorf("can't import %s: %w", p, unwrapPath(statErr))
		case info.IsDir():
			err = r.folder(ctx, p, do)
		case isNDJSON(p):
			err = r.ndjsonFile(ctx, p, do)
		default:
			err = r.file(p, filepath.Base(p), p, do)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isNDJSON(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".ndjson" || ext == ".jsonl"
}

// measure adds up the sizes of what each will read.
func (r *reader) measure(paths []string) int64 {
	var total int64
	silent := &reader{filter: r.filter, skips: newSkips()}
	for _, p := range paths {
		if p == "-" {
			return 0
		}
		info, err := os.Stat(p)
		if err != nil {
			continue
		}
		if !info.IsDir() {
			total += info.Size()
			continue
		}
		_ = silent.walk(context.Background(), p, func(full, _ string) error {
			if info, err := os.Stat(full); err == nil {
				total += info.Size()
			}
			return nil
		}, nil)
	}
	return total
}

func (r *reader) folder(ctx context.Context, root string, do func([]byte, string) error) error {
	return r.walk(ctx, root, func(full, rel string) error { return r.file(full, rel, full, do) }, nil)
}

// walk calls file for every file below root that the filter lets through, and folder, if not nil, for every folder. Links to folders are
// not entered, so that a loop of links can't be walked for ever.
func (r *reader) walk(ctx context.Context, root string, file func(full, rel string) error, folder func(full string)) error {
	real, err := filepath.EvalSymlinks(root) // WalkDir does not enter a root that is a link
	if err == nil {
		real, err = filepath.Abs(real) // as the watcher names files
	}
	if err != nil {
		return fmt.Errorf("can't import %s: %w", root, unwrapPath(err))
	}
	return r.walkBelow(ctx, real, real, file, folder)
}

// walkBelow is walk for a folder below the root that the paths are relative to.
func (r *reader) walkBelow(ctx context.Context, root, start string, file func(full, rel string) error, folder func(full string)) error {
	return filepath.WalkDir(start, func(full string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rel := relative(root, full)
		if err != nil {
			r.skips.add(skipUnreadable, rel)
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		reason := r.filter.leaveOut(rel, d.IsDir())
		switch {
		case d.IsDir() && reason != "":
			r.skips.add(reason, rel+"/")
			return fs.SkipDir
		case d.IsDir():
			if folder != nil {
				folder(full)
			}
			return nil
		case reason != "":
			r.skips.add(reason, rel)
			return nil
		}
		return file(full, rel)
	})
}

func relative(root, full string) string {
	rel, err := filepath.Rel(root, full)
	if err != nil {
		return filepath.ToSlash(full)
	}
	return filepath.ToSlash(rel)
}

// file reads one file as a document. What can't be one is counted, not an error.
func (r *reader) file(full, rel, where string, do func([]byte, string) error) error {
	id, doc, stamp, err := r.document(full, rel)
	var left *errSkip
	if errors.As(err, &left) {
		r.skips.add(left.reason, rel)
		return nil
	}
	if err != nil {
		return err
	}
	if r.many {
		if other, twice := r.ids[id]; twice {
			r.skips.add(skipTwice, where+" ("+other+")")
			return nil
		}
		r.ids[id] = where
	}
	line, err := encodeLine(id, doc)
	if err != nil {
		return fmt.Errorf("encode %s: %w", where, err)
	}
	r.read.Add(stamp.size)
	if r.known != nil {
		r.known.set(full, stamp)
	}
	return do(line, where)
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// document reads a file. An *errSkip says why it can't be a document.
func (r *reader) document(full, rel string) (id string, doc *stream.Document, at stamp, err error) {
	fail := func(reason string) (string, *stream.Document, stamp, error) {
		return "", nil, at, &errSkip{reason}
	}
	id = r.prefix + rel
	if stream.CheckID(id) != nil {
		return fail(skipID)
	}
	// A pipe would block when it is opened.
	if info, err := os.Stat(full); err == nil && info.IsDir() {
		return fail(skipLink)
	} else if err == nil && !info.Mode().IsRegular() {
		return fail(skipSpecial)
	}
	f, err := os.Open(full)
	if err != nil {
		return fail(skipUnreadable)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(skipUnreadable)
	}
	at = stamp{info.ModTime(), info.Size()}
	if at.size > r.maxText {
		return fail(skipTooLarge)
	}
	content, err := io.ReadAll(io.LimitReader(f, r.maxText+1))
	switch {
	case err != nil:
		return fail(skipUnreadable)
	case int64(len(content)) > r.maxText: // it grew meanwhile
		return fail(skipTooLarge)
	case bytes.IndexByte(content, 0) >= 0:
		return fail(skipBinary)
	case !utf8.Valid(content):
		return fail(skipUTF8)
	}
	contentType, _ := contentTypeOf(full)
	doc = &stream.Document{Text: string(content), ContentType: contentType, UpdatedAt: at.modified.UTC()}
	doc.Title = titleOf(contentType, doc.Text)
	return id, doc, at, nil
}

func (r *reader) ndjsonFile(ctx context.Context, name string, do func([]byte, string) error) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("can't import %s: %w", name, unwrapPath(err))
	}
	defer f.Close()
	return r.ndjson(ctx, f, name, do)
}

func (r *reader) ndjson(ctx context.Context, in io.Reader, name string, do func([]byte, string) error) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	for number := 1; ; number++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		line, tooLong, err := readLine(lines, r.maxLine)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s, line %d: %w", name, number, err)
		}
		end := err != nil
		r.read.Add(int64(len(line)) + 1)
		where := fmt.Sprintf("%s:%d", name, number)
		switch line = bytes.TrimSpace(line); {
		case tooLong:
			r.skips.add(skipTooLarge, where)
		case len(line) == 0:
		default:
			if err := do(r.addPrefix(benchmarkLine(line)), where); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// readLine returns the next line without its end. A line over limit bytes is read to its end and dropped.
func readLine(in *bufio.Reader, limit int) (line []byte, tooLong bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > limit {
			line, tooLong = nil, true
		}
		if !tooLong {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err
		}
	}
}

// benchmarkLine turns a line of a BEIR corpus, which has "_id" in place of "id", into a document. Its text is title, space, text, as benchmarks search it.
// Any other line stays as it is.
func benchmarkLine(line []byte) []byte {
	if !bytes.Contains(line, []byte(`"_id"`)) {
		return line
	}
	var fields map[string]json.RawMessage
	var d evals.BEIRDocument
	if json.Unmarshal(line, &fields) != nil || json.Unmarshal(line, &d) != nil || d.ID == "" || fields["id"] != nil || fields["deleted"] != nil {
		return line
	}
	doc := map[string]any{"id": d.ID, "text": d.BenchmarkText(), "title": d.Title}
	var metadata map[string]any
	if json.Unmarshal(fields["metadata"], &metadata) == nil {
		// What a benchmark keeps there may be of any shape; what can't be asked for is left out.
		maps.DeleteFunc(metadata, func(_ string, value any) bool {
			switch value.(type) {
			case string, float64, bool:
				return false
			}
			return true
		})
		doc["metadata"] = metadata
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return line
	}
	return out
}

// addPrefix puts the prefix before the line's id. A line that has none is left to the server to refuse.
func (r *reader) addPrefix(line []byte) []byte {
	if r.prefix == "" {
		return line
	}
	var fields map[string]json.RawMessage
	var id string
	if json.Unmarshal(line, &fields) != nil || json.Unmarshal(fields["id"], &id) != nil || id == "" {
		return line
	}
	fields["id"], _ = json.Marshal(r.prefix + id)
	out, err := json.Marshal(fields)
	if err != nil {
		return line
	}
	return out
}

// contentTypeOf tells a content type by a file's ending; ok is false for an ending that no text has.
func contentTypeOf(name string) (contentType string, ok bool) {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".md", ".markdown":
		return stream.TextMarkdown, true
	case ".html", ".htm":
		return stream.TextHTML, true
	case ".txt", ".text":
		return stream.TextPlain, true
	}
	return "", false
}

// fileFilter decides by a path alone which files are looked into.
type fileFilter struct {
	include, exclude []*glob
}

func newFileFilter(include, exclude []string) (*fileFilter, error) {
	f := &fileFilter{}
	for _, list := range []struct {
		patterns []string
		globs    *[]*glob
	}{{include, &f.include}, {exclude, &f.exclude}} {
		for _, pattern := range list.patterns {
			g, err := newGlob(pattern)
			if err != nil {
				return nil, err
			}
			*list.globs = append(*list.globs, g)
		}
	}
	return f, nil
}

// leaveOut returns the reason for leaving a path out, "" if it is to be read. rel has slashes.
func (f *fileFilter) leaveOut(rel string, folder bool) string {
	name := path.Base(rel)
	matches := func(g *glob) bool { return g.match(rel) }
	switch {
	case rel == ".":
		return ""
	case strings.HasPrefix(name, "."):
		return skipHidden
	case slices.ContainsFunc(f.exclude, matches):
		return skipExcluded
	case folder:
		return ""
	case isEditorFile(name):
		return skipHidden
	case len(f.include) > 0:
		if slices.ContainsFunc(f.include, matches) {
			return ""
		}
		return skipExcluded
	}
	if _, ok := contentTypeOf(name); ok {
		return ""
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".pdf":
		return skipPDF
	case ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".ico", ".bmp", ".tiff", ".avif":
		return skipImage
	}
	return skipKind
}

// leaveOutBelow is leaveOut for a file that was not come to through its folders: it returns the first of them that is left out, with a slash, or the file.
func (f *fileFilter) leaveOutBelow(rel string) (where, reason string) {
	for i := range rel {
		if rel[i] == '/' {
			if reason := f.leaveOut(rel[:i], true); reason != "" {
				return rel[:i+1], reason
			}
		}
	}
	return rel, f.leaveOut(rel, false)
}

// isEditorFile tells the files that editors write beside the one they save.
func isEditorFile(name string) bool {
	return strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp") || strings.HasSuffix(name, ".tmp") ||
		strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#") || strings.HasPrefix(name, "~$")
}

// glob is a pattern for paths: * and ? stay within a folder, ** crosses folders, [abc] is one of the letters. Without a slash it is for the last
// part of the path alone.
type glob struct {
	match func(rel string) bool
}

func newGlob(pattern string) (*glob, error) {
	trimmed := strings.TrimPrefix(strings.TrimSuffix(pattern, "/"), "./")
	var b strings.Builder
	b.WriteString("^")
	for i := 0; i < len(trimmed); i++ {
		switch rest := trimmed[i:]; {
		case strings.HasPrefix(rest, "**/"):
			b.WriteString("(?:.*/)?")
			i += 2
		case strings.HasPrefix(rest, "/**") && len(rest) == 3:
			b.WriteString("(?:/.*)?") // the folder itself too, so that it need not be entered
			i += 2
		case strings.HasPrefix(rest, "**"):
			b.WriteString(".*")
			i++
		case rest[0] == '*':
			b.WriteString("[^/]*")
		case rest[0] == '?':
			b.WriteString("[^/]")
		case rest[0] == '[' && strings.IndexByte(rest, ']') > 1:
			end := strings.IndexByte(rest, ']')
			class := strings.ReplaceAll(rest[1:end], `\`, `\\`)
			if class[0] == '!' {
				class = "^" + class[1:]
			}
			b.WriteString("[" + class + "]")
			i += end
		default:
			_, size := utf8.DecodeRuneInString(rest)
			b.WriteString(regexp.QuoteMeta(rest[:size]))
			i += size - 1
		}
	}
	expression, err := regexp.Compile("(?s)" + b.String() + "$")
	if err != nil || trimmed == "" {
		return nil, &usageError{detail: fmt.Sprintf("%q is no pattern for files", pattern)}
	}
	byName := !strings.Contains(trimmed, "/")
	return &glob{func(rel string) bool {
		if byName {
			rel = path.Base(rel)
		}
		return expression.MatchString(rel)
	}}, nil
}

// skips counts what was left out, by reason, with a few examples.
type skips struct {
	mu       sync.Mutex
	byReason map[string]*skip
}

// skip is one reason for leaving files out.
type skip struct {
	Reason   string   `json:"reason"`
	Count    int      `json:"count"`
	Examples []string `json:"examples"`
}

func (s skip) String() string {
	text := fmt.Sprintf("%s %s: %s", spell.Thousands(s.Count), s.Reason, strings.Join(s.Examples, ", "))
	if s.Count > len(s.Examples) {
		text += ", …"
	}
	return text
}

func newSkips() *skips { return &skips{byReason: map[string]*skip{}} }

func (s *skips) add(reason, where string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byReason[reason]
	if one == nil {
		one = &skip{Reason: reason}
		s.byReason[reason] = one
	}
	one.Count++
	if len(one.Examples) < 3 {
		one.Examples = append(one.Examples, where)
	}
}

// list returns the reasons in order of their names.
func (s *skips) list() []skip {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []skip{}
	for _, reason := range slices.Sorted(maps.Keys(s.byReason)) {
		out = append(out, *s.byReason[reason])
	}
	return out
}
