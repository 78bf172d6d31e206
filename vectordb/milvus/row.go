package milvus

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"github.com/liverag/liverag/vectordb"
)

// The fields of a row.
const (
	// fieldRow is the primary key: document / version of the content / version of the access / ordinal.
	fieldRow = "row"
	// fieldDocument is half of the document's hash on its head, as a number above 0, and 0 on its other rows: looking for heads finds nothing else.
	fieldDocument = "document"
	// fieldKey is the document's key in hexadecimal digits, on its head: they compare like the bytes, and need no escaping.
	fieldKey = "key"
	// fieldScope says who may find the row: the tenant, and whether there is an access list; 0 if nobody.
	fieldScope = "scope"
	// fieldTags are hashes of what filters can ask for; see tags.go.
	fieldTags = "tags"
	// fieldOrder has what filters compare.
	fieldOrder = "ord"
	// fieldHead and fieldBody are the document's own, on its head: what decides, and what is shown.
	fieldHead = "head"
	fieldBody = "body"
	// fieldText is a piece of the document's text with where it belongs and which chunk it is.
	fieldText = "text"
	// fieldVector is the chunk's vector, zeros where there is none.
	fieldVector = "vector"
	// fieldTerms is the chunk's sparse vector.
	fieldTerms = "terms"
)

// docLength is the length of a document's hash.
const docLength = 32

// maxPiece bounds a row's text in bytes: so much fits a VARCHAR also where it has to be encoded, its header included.
const maxPiece = 48_000

// document is the hash that stands for a key in rows.
func document(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:docLength/2])
}

// numberOf is the number that stands for a document's hash.
func numberOf(doc string) int64 {
	n, _ := strconv.ParseUint(doc[:docLength/2], 16, 64) // of our own digits
	return int64(n>>1) | 1
}

func numbersOf(docs []string) []int64 {
	list := make([]int64, len(docs))
	for i, doc := range docs {
		list[i] = numberOf(doc)
	}
	return list
}

// stamp is a revision: a version of the content, and the access that its rows carry.
type stamp struct{ content, access int64 }

func (s stamp) less(t stamp) bool { return s.compare(t) < 0 }

func (s stamp) compare(t stamp) int {
	return cmp.Or(cmp.Compare(s.content, t.content), cmp.Compare(s.access, t.access))
}

// rowKey names a row.
func rowKey(doc string, s stamp, ordinal int) string {
	return doc + "/" + strconv.FormatInt(s.content, 10) + "/" + strconv.FormatInt(s.access, 10) + "/" + strconv.Itoa(ordinal)
}

// parseRowKey takes a row's name apart.
func parseRowKey(key string) (doc string, s stamp, ordinal int, err error) {
	parts := strings.Split(key, "/")
	if len(parts) == 4 {
		var errs [3]error
		s.content, errs[0] = strconv.ParseInt(parts[1], 10, 64)
		s.access, errs[1] = strconv.ParseInt(parts[2], 10, 64)
		ordinal, errs[2] = strconv.Atoi(parts[3])
		if errs == [3]error{} {
			return parts[0], s, ordinal, nil
		}
	}
	return "", s, 0, fmt.Errorf("row %q is none of ours: %w", key, vectordb.ErrCorrupt)
}

// row is a row as it is written.
type row struct {
	key       string
	document  int64
	keyHex    string
	scope     int64
	tags      []int64
	order     []byte
	head      string
	body      string
	text      string
	vector    []float32
	positions []uint32 // of the sparse vector
	weights   []float32
}

// size is about what it takes in a request.
func (r *row) size() int {
	return 160 + len(r.key) + len(r.keyHex) + 9*len(r.tags) + len(r.order) + len(r.head) + len(r.body) + len(r.text) + 4*len(r.vector) + 8*len(r.positions)
}

// headJSON is what fieldHead holds: enough to decide which revision of a document is shown, and to whom.
type headJSON struct {
	Rows   int   `json:"r"`           // of this revision, the head included
	Chunks int   `json:"c,omitempty"` // how many of them are chunks: the first ones
	Tokens int64 `json:"t,omitempty"`
	Bytes  int   `json:"b,omitempty"` // of the text
	// Deleted or None: there is no content, as of this version or at all.
	Deleted bool `json:"d,omitempty"`
	None    bool `json:"n,omitempty"`
	// Tenant and ACL are the content's.
	Tenant string   `json:"tenant,omitempty"`
	ACL    []string `json:"acl"` // null is everybody
	// Clear and Access are the override in force, whose version is in the row's key.
	Clear  bool     `json:"clear,omitempty"`
	Access []string `json:"access,omitempty"`
	// Searchable is when the content was written, in microseconds.
	Searchable int64 `json:"s,omitempty"`
	// Written is when the row was.
	Written int64 `json:"w"`
}

// bodyJSON is what fieldBody holds: what a hit shows of its document.
type bodyJSON struct {
	ContentType string         `json:"type,omitempty"`
	Title       string         `json:"title,omitempty"`
	URL         string         `json:"url,omitempty"`
	UpdatedAt   *int64         `json:"updated,omitempty"` // in microseconds
	LoggedAt    *int64         `json:"logged,omitempty"`
	Metadata    map[string]any `json:"meta,omitempty"`
}

// head is a head as it was read.
type head struct {
	doc   string
	key   string // the document's
	stamp stamp
	headJSON
	body string
}

// row names one of the revision's rows.
func (h *head) row(ordinal int) string { return rowKey(h.doc, h.stamp, ordinal) }

// rows names all of them, the head last: while it is there the others can be found by it.
func (h *head) rows() []string {
	list := make([]string, 0, h.Rows)
	for n := h.Rows - 1; n >= 0; n-- {
		list = append(list, h.row(n))
	}
	return list
}

// live tells whether there is content to show.
func (h *head) live() bool { return !h.Deleted && !h.None }

// access is the override that the head carries.
func (h *head) override() vectordb.Access {
	if h.stamp.access == 0 {
		return vectordb.Access{}
	}
	return vectordb.Access{Version: h.stamp.access, Clear: h.Clear, ACL: h.Access}
}

// state is what is known of a document: every head that is there.
type state struct {
	heads []head
}

func put(states map[string]*state, h head) {
	s := states[h.doc]
	if s == nil {
		s = &state{}
		states[h.doc] = s
	}
	for i := range s.heads {
		if s.heads[i].stamp == h.stamp {
			if s.heads[i].body == "" {
				s.heads[i] = h
			}
			return
		}
	}
	s.heads = append(s.heads, h)
}

// current is the head of the revision in force, nil if there is none.
func (s *state) current() *head {
	if s == nil {
		return nil
	}
	var best *head
	for i := range s.heads {
		if best == nil || best.stamp.less(s.heads[i].stamp) {
			best = &s.heads[i]
		}
	}
	return best
}

// access is the newest override: that of the current head, unless two writers crossed.
func (s *state) access() vectordb.Access {
	var newest vectordb.Access
	if s == nil {
		return newest
	}
	for i := range s.heads {
		if a := s.heads[i].override(); a.Version > newest.Version {
			newest = a
		}
	}
	return newest
}

// version is the version of the content, 0 if there is none.
func (s *state) version() int64 {
	if h := s.current(); h != nil {
		return h.stamp.content
	}
	return 0
}

// superseded are the rows of all heads but the current one.
func (s *state) superseded() []string {
	current := s.current()
	var rows []string
	for i := range s.heads {
		if h := &s.heads[i]; h != current {
			rows = append(rows, h.rows()...)
		}
	}
	return rows
}

// revision is the document as its heads tell it: without text and entries. It shares nothing that can be written to.
func (s *state) revision() (vectordb.Revision, error) {
	h := s.current()
	r := vectordb.Revision{Key: h.key, Version: h.stamp.content, Deleted: h.Deleted, Access: s.access()}
	r.Access.ACL = slices.Clone(r.Access.ACL)
	if !h.live() {
		return r, nil
	}
	var b bodyJSON
	if err := json.Unmarshal([]byte(h.body), &b); err != nil {
		return r, fmt.Errorf("document %q, version %d: its body: %w: %w", h.key, h.stamp.content, vectordb.ErrCorrupt, err)
	}
	r.ContentType, r.Title, r.URL, r.Metadata = b.ContentType, b.Title, b.URL, b.Metadata
	r.UpdatedAt, r.LoggedAt, r.SearchableAt = instant(b.UpdatedAt), instant(b.LoggedAt), time.UnixMicro(h.Searchable).UTC()
	r.Tenant, r.ACL = h.Tenant, slices.Clone(h.ACL)
	for name, v := range r.Metadata {
		if list, ok := v.([]any); ok {
			values := make([]string, len(list))
			for i, v := range list {
				values[i], _ = v.(string)
			}
			r.Metadata[name] = values
		}
	}
	return r, nil
}

func instant(micros *int64) time.Time {
	if micros == nil {
		return time.Time{}
	}
	return time.UnixMicro(*micros).UTC()
}

func microseconds(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	micros := t.UnixMicro()
	return &micros
}

func compact(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// encode makes a revision's rows, its head first. r has the access in force; searchable is the time of its content, in microseconds.
func (g *generation) encode(r *vectordb.Revision, searchable int64, now time.Time) ([]row, head, error) {
	h := head{doc: document(r.Key), key: r.Key, stamp: stamp{r.Version, r.Access.Version}}
	h.headJSON = headJSON{
		Deleted: r.Deleted, None: r.Version == 0, Tenant: r.Tenant, ACL: r.ACL, Clear: r.Access.Clear, Access: r.Access.ACL, Searchable: searchable, Written: now.UnixMicro(),
	}
	if err := checkUTF8(r); err != nil {
		return nil, h, err
	}
	rows := make([]row, 1, 1+len(r.Entries))
	nothing := make([]float32, g.about.Dim)
	if h.live() {
		var err error
		if rows, err = g.content(r, nothing); err != nil {
			return nil, h, err
		}
		h.Chunks, h.Bytes = len(r.Entries), len(r.Text)
		for i := range r.Entries {
			h.Tokens += int64(r.Entries[i].Tokens)
		}
		h.body, err = compact(bodyJSON{
			ContentType: r.ContentType, Title: r.Title, URL: r.URL, UpdatedAt: microseconds(r.UpdatedAt), LoggedAt: microseconds(r.LoggedAt), Metadata: r.Metadata,
		})
		if err != nil {
			return nil, h, invalidf("revision of %q: %v", r.Key, err)
		}
	} else {
		h.Tenant, h.ACL, h.Searchable = "", nil, 0
	}
	h.Rows = len(rows)
	for i := range rows {
		rows[i].key = h.row(i)
		if rows[i].vector == nil {
			rows[i].vector = nothing
		}
		if rows[i].order == nil {
			rows[i].order = []byte("{}")
		}
		if len(rows[i].positions) == 0 {
			rows[i].positions, rows[i].weights = noTerms, noWeights
		}
	}
	text, err := compact(h.headJSON)
	if err != nil {
		return nil, h, invalidf("revision of %q: %v", r.Key, err)
	}
	rows[0].document, rows[0].keyHex, rows[0].head, rows[0].body = numberOf(h.doc), hex.EncodeToString([]byte(r.Key)), text, h.body
	for what, s := range map[string]string{"key": rows[0].keyHex, "access list": rows[0].head, "title, URL and metadata": rows[0].body} {
		if len(s) > maxVarchar {
			return nil, h, invalidf("revision of %q: its %s takes %d bytes in a row, Milvus allows %d; make it shorter", cut(r.Key), what, len(s), maxVarchar)
		}
	}
	return rows, h, nil
}

// checkUTF8 refuses what a VARCHAR can't hold. The text may be any bytes.
func checkUTF8(r *vectordb.Revision) error {
	bad := func(what, s string) error {
		return invalidf("revision of %q: its %s is not UTF-8: %q", cut(r.Key), what, cut(s))
	}
	for what, s := range map[string]string{"key": r.Key, "tenant": r.Tenant, "title": r.Title, "URL": r.URL, "content type": r.ContentType} {
		if !utf8.ValidString(s) {
			return bad(what, s)
		}
	}
	for _, s := range slices.Concat(r.ACL, r.Access.ACL) {
		if !utf8.ValidString(s) {
			return bad("access list", s)
		}
	}
	for name, v := range r.Metadata {
		values, _ := v.([]string)
		if s, ok := v.(string); ok {
			values = []string{s}
		}
		for _, s := range append([]string{name}, values...) {
			if !utf8.ValidString(s) {
				return bad("metadata", s)
			}
		}
	}
	return nil
}

func cut(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// content makes the rows of chunks, and after them those of text that no chunk's row has room for. Each chunk's row has the document's bytes from its start
// (the first one: from the text's) to the next one's, or to its own end where chunks overlap.
func (g *generation) content(r *vectordb.Revision, nothing []float32) ([]row, error) {
	about, err := describeDocument(r)
	if err != nil {
		return nil, err
	}
	rows := make([]row, 0, len(r.Entries)+1)
	var rest [][2]int // spans that still need a row
	repeats := map[vectordb.Hash]int{}
	for i := range max(1, len(r.Entries)) {
		from, to := 0, len(r.Text)
		if i > 0 {
			from = r.Entries[i].Start
		}
		if i+1 < len(r.Entries) {
			to = max(r.Entries[i].End, r.Entries[i+1].Start)
		}
		fits := piece(r.Text, from, to)
		if fits < to {
			rest = append(rest, [2]int{fits, to})
		}
		if len(r.Entries) == 0 {
			rows = append(rows, row{text: encodeText(nil, 0, from, r.Text[from:fits])})
			break
		}
		e := &r.Entries[i]
		x := row{scope: about.scope[hidden], tags: about.tags, order: about.order, vector: nothing}
		if isZero(e.Vector) {
			x.scope = about.scope[lexicalOnly]
		} else {
			x.scope, x.vector = about.scope[found], e.Vector
		}
		x.text = encodeText(e, repeats[e.Hash], from, r.Text[from:fits])
		repeats[e.Hash]++
		if g.sparse {
			x.positions, x.weights = termWeights(r.Text[e.Start:e.End])
		}
		rows = append(rows, x)
	}
	for _, span := range rest {
		for from := span[0]; from < span[1]; {
			to := piece(r.Text, from, span[1])
			rows = append(rows, row{text: encodeText(nil, 0, from, r.Text[from:to])})
			from = to
		}
	}
	return rows, nil
}

// piece tells how far a row's text reaches: to the end, or as far as a row has room, at a character where there is one.
func piece(text string, from, to int) int {
	if to-from <= maxPiece {
		return to
	}
	end := from + maxPiece
	for back := end; back > end-utf8.UTFMax; back-- {
		if utf8.RuneStart(text[back]) {
			return back
		}
	}
	return end
}

func isZero(vector []float32) bool {
	for _, x := range vector {
		if x != 0 {
			return false
		}
	}
	return true
}

// chunk is what fieldText holds: a piece of the document's text, and the chunk that it belongs to, if any.
type chunk struct {
	entry  *vectordb.Entry // nil: text only
	repeat int             // how many chunks before it have the same hash
	at     int             // where the text begins in the document's
	text   string
}

// encodeText writes a line of where the text belongs, then the text; one that is no UTF-8 in base64.
func encodeText(e *vectordb.Entry, repeat, at int, text string) string {
	var b strings.Builder
	b.Grow(96 + len(text))
	plain := utf8.ValidString(text)
	if plain {
		b.WriteByte('t')
	} else {
		b.WriteByte('b')
	}
	fmt.Fprintf(&b, " %d", at)
	if e != nil {
		fmt.Fprintf(&b, " %d %d %d %x %d", e.Start, e.End, e.Tokens, e.Hash[:], repeat)
	}
	b.WriteByte('\n')
	if plain {
		b.WriteString(text)
	} else {
		b.WriteString(base64.StdEncoding.EncodeToString([]byte(text)))
	}
	return b.String()
}

// decodeText reads what encodeText wrote.
func decodeText(s string) (c chunk, err error) {
	bad := func() (chunk, error) {
		return chunk{}, fmt.Errorf("the text of a row begins with %q: %w", cut(s), vectordb.ErrCorrupt)
	}
	line, text, ok := strings.Cut(s, "\n")
	f := strings.Split(line, " ")
	if !ok || len(f) != 2 && len(f) != 7 {
		return bad()
	}
	numbers := [5]int{}
	for i, at := range []int{1, 2, 3, 4, 6} {
		if at < len(f) {
			if numbers[i], err = strconv.Atoi(f[at]); err != nil || numbers[i] < 0 {
				return bad()
			}
		}
	}
	c = chunk{at: numbers[0], repeat: numbers[4], text: text}
	switch f[0] {
	case "t":
	case "b":
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return bad()
		}
		c.text = string(raw)
	default:
		return bad()
	}
	if len(f) == 7 {
		c.entry = &vectordb.Entry{Start: numbers[1], End: numbers[2], Tokens: numbers[3]}
		if n, err := hex.Decode(c.entry.Hash[:], []byte(f[5])); err != nil || n != len(c.entry.Hash) || len(f[5]) != 2*n {
			return bad()
		}
	}
	return c, nil
}

// own is the chunk's own text, if the piece has all of it.
func (c *chunk) own() (string, bool) {
	from, to := c.entry.Start-c.at, c.entry.End-c.at
	if from < 0 || from > to || to > len(c.text) {
		return "", false
	}
	return c.text[from:to], true
}

// columns puts rows into the form of a request.
func (g *generation) columns(rows []row) []entity.Column {
	n := len(rows)
	texts := map[string][]string{}
	for _, field := range []string{fieldRow, fieldKey, fieldHead, fieldBody, fieldText} {
		texts[field] = make([]string, n)
	}
	documents, scopes, tags, orders, vectors := make([]int64, n), make([]int64, n), make([][]int64, n), make([][]byte, n), make([][]float32, n)
	for i := range rows {
		r := &rows[i]
		texts[fieldRow][i], texts[fieldKey][i], documents[i] = r.key, r.keyHex, r.document
		texts[fieldHead][i], texts[fieldBody][i], texts[fieldText][i] = r.head, r.body, r.text
		scopes[i], tags[i], orders[i], vectors[i] = r.scope, r.tags, r.order, r.vector
	}
	columns := []entity.Column{
		entity.NewColumnInt64(fieldDocument, documents), entity.NewColumnInt64(fieldScope, scopes), entity.NewColumnInt64Array(fieldTags, tags), entity.NewColumnJSONBytes(fieldOrder, orders),
		entity.NewColumnFloatVector(fieldVector, g.about.Dim, vectors),
	}
	for field, values := range texts {
		columns = append(columns, entity.NewColumnVarChar(field, values))
	}
	if g.sparse {
		terms := make([]entity.SparseEmbedding, n)
		for i := range rows {
			terms[i], _ = entity.NewSliceSparseEmbedding(rows[i].positions, rows[i].weights) // fails if their lengths differ
		}
		columns = append(columns, entity.NewColumnSparseVectors(fieldTerms, terms))
	}
	return columns
}

// strings returns a column of a result; none if the result is empty.
func stringsOf(columns client.ResultSet, field string) []string {
	if c, ok := columns.GetColumn(field).(*entity.ColumnVarChar); ok {
		return c.Data()
	}
	return nil
}

func vectorsOf(columns client.ResultSet) [][]float32 {
	if c, ok := columns.GetColumn(fieldVector).(*entity.ColumnFloatVector); ok {
		return c.Data()
	}
	return nil
}

// readHeads takes heads from a result.
func readHeads(columns client.ResultSet) ([]head, error) {
	rows, keys, heads, bodies := stringsOf(columns, fieldRow), stringsOf(columns, fieldKey), stringsOf(columns, fieldHead), stringsOf(columns, fieldBody)
	if len(keys) < len(rows) || len(heads) < len(rows) {
		return nil, fmt.Errorf("heads of documents without their fields: %w", vectordb.ErrCorrupt)
	}
	list := make([]head, 0, len(rows))
	for i := range rows {
		doc, s, _, err := parseRowKey(rows[i])
		if err != nil {
			return nil, err
		}
		key, err := hex.DecodeString(keys[i])
		if err != nil {
			return nil, fmt.Errorf("row %s: its document's key: %w: %w", rows[i], vectordb.ErrCorrupt, err)
		}
		h := head{doc: doc, key: string(key), stamp: s}
		if err := json.Unmarshal([]byte(heads[i]), &h.headJSON); err != nil {
			return nil, fmt.Errorf("row %s: its head: %w: %w", rows[i], vectordb.ErrCorrupt, err)
		}
		if i < len(bodies) {
			h.body = bodies[i]
		}
		list = append(list, h)
	}
	return list, nil
}
