package indexer

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/htmltext"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// Verification asks whether a generation is the fold of the log.
type Verification struct {
	// Generation is a name or an alias. Defaults to live.
	Generation string
	// Rate is the most documents, and changes of the log, that are read in a second. 0: no limit.
	Rate int
	// Sample is the share of the documents that are compared, chosen by a hash of their keys: the same ones every time. 0 is 1.
	Sample float64
	// Repair puts right what is wrong.
	Repair bool

	memory int64 // bytes that the fold may take; 0: verifyMemory
	ghosts bool  // nothing counts but what the log does not hold any more: see reconcile
}

const (
	// verifyMemory bounds the fold. A corpus of which less fits is compared in several slices, each with a reading of the log and of the store.
	verifyMemory = 128 << 20
	// foldedOverhead is what a document costs in the fold beside its key.
	foldedOverhead = 144
	verifyPage     = 64       // documents in one reading of the store, if they are small
	verifyBytes    = 16 << 20 // of documents at once, about
	verifySuspects = 512      // documents looked at again at once
	// verifyKept is how many findings a report names. All are counted.
	verifyKept = 1000
	// verifyBurst is how much of the time in which nothing was read may be made up for at full speed.
	verifyBurst = 100 * time.Millisecond
	// verifyWait is how long an index may take to reach what the log held when it was asked.
	verifyWait = time.Minute
	// unitTolerance is how far from 1 the length of a vector may be: float32 sums of some thousand squares.
	unitTolerance = 1e-3
)

var (
	// ErrVerifying: one verification at a time.
	ErrVerifying = errors.New("a verification is running")
	// ErrVerification: the verification asked for makes no sense.
	ErrVerification = errors.New("bad verification")
)

// Kinds of a Finding.
const (
	// Missing: the log holds the document, the generation does not.
	Missing = "missing"
	// Stale: the generation holds another version than the log's newest, or another access.
	Stale = "stale"
	// Orphaned: the generation holds a document that the log has deleted, or never had.
	Orphaned = "orphaned"
	// Mixed: text or chunks are not those of the version.
	Mixed = "mixed"
	// BadVector: a vector of the wrong dimension, not of unit length, or absent.
	BadVector = "bad_vector"
)

// Finding is a document that is not in the index as the log has it.
type Finding struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant,omitempty"`
	Kind   string `json:"kind"`
	Detail string `json:"detail"`
	// Stored and Logged are its versions; 0 for none.
	Stored int64 `json:"stored_version"`
	Logged int64 `json:"log_version"`
	// Repaired is absent unless a repair was asked for.
	Repaired *bool `json:"repaired,omitempty"`

	access int64 // version of an access list that the log does not hold; 0: none
}

// Verified is what a verification has found, so far or in all.
type Verified struct {
	Generation string `json:"generation"`
	// Share of the work that is done, from 0 to 1; an estimate.
	Share float64 `json:"share"`
	// Changes of the log that were read, and documents of the store that were compared.
	Changes   int64 `json:"changes"`
	Documents int64 `json:"documents"`
	Missing   int64 `json:"missing"`
	Stale     int64 `json:"stale"`
	Orphaned  int64 `json:"orphaned"`
	Mixed     int64 `json:"mixed"`
	BadVector int64 `json:"bad_vector"`
	// DeadLettered documents are served at an older version because their newest change can't be indexed. That is not wrong.
	DeadLettered int64 `json:"dead_lettered"`
	Repaired     int64 `json:"repaired"`
	// Right tells that nothing is wrong, or that everything was repaired.
	Right    bool      `json:"right"`
	Began    time.Time `json:"began"`
	Took     string    `json:"took"`
	Findings []Finding `json:"findings"`
}

func (v *Verified) wrong() int64 { return v.Missing + v.Stale + v.Orphaned + v.Mixed + v.BadVector }

// folded is what the log says of a document, as far as it has been read.
type folded struct {
	version int64 // newest content, deletes included; 0: none
	access  int64 // newest access
	poison  int64 // newest record of it that is no change
	digest  [8]byte
	at      int32 // the newest content's partition
	said    int32 // the newest access's partition
	deleted bool
	seen    bool // in the store
}

// places are where the newest content and the newest access are in the log.
func (f *folded) places() (at []stream.Position) {
	if f.version > 0 {
		at = append(at, stream.Position{Partition: f.at, Offset: stream.OffsetOf(f.version)})
	}
	if f.access > 0 {
		at = append(at, stream.Position{Partition: f.said, Offset: stream.OffsetOf(f.access)})
	}
	return at
}

// share is a part of the space of hashes: those whose first bits are these.
type share struct {
	bits   int
	prefix uint64
}

func (s share) holds(hash uint64) bool { return s.bits == 0 || hash>>(64-s.bits) == s.prefix }

// verification is one at work.
type verification struct {
	Verification
	x      *Indexer
	g      *generation
	parts  Parts
	report Verified
	tell   func(Verified)
	told   time.Time
	begun  time.Time
	paced  int64     // documents and changes read
	due    time.Time // when as many would have been read at the rate

	slice share
	later []share // slices that are left
	log   *logReader
	fold  map[string]*folded
	bytes int64
	ends  map[int32]int64 // of the last look
	known map[int32]int64 // how far the log was read for any slice
}

// Verify compares a generation with the fold of the log while both go on changing, and tells progress about once a second.
//
// The log is folded from its beginning into the newest version of each document, and the store is read along. What does not agree is only suspected: the
// log may have moved on since, or the index. So the fold is taken up to the log's present end, the index awaited there, and the document read again;
// it is right if it is in any state that the log gives it from that end on. Nothing that changes meanwhile is reported, and nothing that is wrong passes.
func (x *Indexer) Verify(ctx context.Context, v Verification, progress func(Verified)) (Verified, error) {
	if v.Generation == "" {
		v.Generation = Live
	}
	if v.Sample == 0 {
		v.Sample = 1
	}
	if v.memory == 0 {
		v.memory = verifyMemory
	}
	if err := x.verifiable(v); err != nil {
		return Verified{Generation: v.Generation}, err
	}
	g := x.lookup(v.Generation)
	if g == nil {
		return Verified{}, fmt.Errorf("%w: %s", ErrNotFound, v.Generation)
	}
	parts, err := g.usable()
	if err != nil {
		return Verified{}, err
	}
	if !x.verifying.CompareAndSwap(false, true) {
		return Verified{}, ErrVerifying
	}
	defer x.verifying.Store(false)
	r := &verification{Verification: v, x: x, g: g, parts: parts, tell: progress, begun: time.Now(), later: []share{{}}}
	r.report = Verified{Generation: g.name, Began: r.begun.UTC(), Findings: []Finding{}}
	if err := r.compare(ctx); err != nil {
		return r.report, fmt.Errorf("verify %s: %w", g.name, err)
	}
	r.report.Took = time.Since(r.begun).Round(time.Millisecond).String()
	r.report.Right, r.report.Share = r.report.wrong() == r.report.Repaired, 1
	report := r.report
	g.verified.Store(&report)
	return report, nil
}

// verifiable tells what is wrong with a verification before it begins.
func (x *Indexer) verifiable(v Verification) error {
	if !(v.Sample >= 0 && v.Sample <= 1) || v.Rate < 0 {
		return fmt.Errorf("%w: sample is above 0 and at most 1, rate is not negative", ErrVerification)
	}
	g := x.lookup(cmp.Or(v.Generation, Live))
	if g == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, v.Generation)
	}
	_, err := g.usable()
	return err
}

// compare compares every document.
func (r *verification) compare(ctx context.Context) error {
	for len(r.later) > 0 {
		r.slice, r.later = r.later[len(r.later)-1], r.later[:len(r.later)-1]
		if err := r.compareSlice(ctx); err != nil {
			return err
		}
	}
	return nil
}

// compareSlice compares the documents of the present slice; if they are too many it takes half of them and leaves the others for later.
func (r *verification) compareSlice(ctx context.Context) (err error) {
	r.fold, r.bytes, r.ends = make(map[string]*folded), 0, make(map[int32]int64)
	if r.log, err = r.x.readLog(ctx, map[int32]int64{}); err != nil {
		return err
	}
	defer r.log.close()
	defer func() { r.known = maps.Clone(r.log.at) }()
	ends, err := r.look(ctx)
	if err != nil {
		return err
	}
	if err := r.log.until(ctx, ends, func(c *stream.Change) error { return r.read(ctx, c, nil) }); err != nil {
		return err
	}
	var suspects []string
	suspected := 0 // bytes
	settle := func(most int) error {
		for len(suspects) > most {
			n := min(len(suspects), verifySuspects)
			if err := r.resolve(ctx, suspects[:n]); err != nil {
				return err
			}
			suspects = suspects[n:]
		}
		return nil
	}
	for after, limit := "", 1; ; {
		page, err := r.x.config.Store.Scan(ctx, r.g.name, after, limit)
		if err != nil {
			return fmt.Errorf("scan the store: %w", err)
		}
		if len(page) == 0 {
			break
		}
		after = page[len(page)-1].Key
		if limit = min(2*limit, verifyPage); weight(page) > verifyBytes {
			limit = max(1, limit/4)
		}
		for i := range page {
			key := page[i].Key
			if !r.mine(key) {
				continue
			}
			f := r.fold[key]
			if f == nil {
				f = &folded{} // one that is not in the log
			}
			f.seen = true
			if !page[i].Deleted && page[i].Version > 0 {
				r.report.Documents++
			}
			kind, _, err := r.differs(ctx, &page[i], f)
			if err != nil {
				return err
			}
			if kind != "" {
				suspects = append(suspects, key)
				suspected += weight(page[i : i+1])
			} else if f.poison > f.version {
				r.report.DeadLettered++
			}
			if err := r.pace(ctx, 1); err != nil {
				return err
			}
		}
		most := verifySuspects
		if suspected > verifyBytes { // they are read again, all at once
			most, suspected = 0, 0
		}
		if err := settle(most); err != nil {
			return err
		}
	}
	for key, f := range r.fold {
		if !r.ghosts && !f.seen && f.version > 0 && !f.deleted {
			suspects = append(suspects, key)
		} else if !f.seen && f.poison > f.version {
			r.report.DeadLettered++
		}
	}
	return settle(0)
}

// look asks the log for its ends.
func (r *verification) look(ctx context.Context) ([]stream.End, error) {
	ends, err := r.x.config.Log.Ends(ctx)
	if err != nil {
		return nil, err
	}
	for _, end := range ends {
		r.ends[end.Partition] = end.Offset
	}
	return ends, nil
}

// hash spreads keys: FNV-1a with the finalizer of MurmurHash3, since FNV alone leaves the first bits of short keys alike.
func hash(key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	z := h.Sum64()
	z ^= z >> 33
	z *= 0xff51afd7ed558ccd
	z ^= z >> 33
	z *= 0xc4ceb9fe1a85ec53
	return z ^ z>>33
}

func (r *verification) mine(key string) bool {
	h := hash(key)
	return r.slice.holds(h) && inSample(h, r.Sample) && inSample(h, r.g.extent.Sample)
}

// read folds one change. history, if not nil, gets the states of the documents that it knows.
func (r *verification) read(ctx context.Context, c *stream.Change, history map[string][]folded) error {
	r.report.Changes++
	if err := r.pace(ctx, 1); err != nil {
		return err
	}
	key := c.Key()
	if c.ID == "" || !r.mine(key) || !r.g.extent.holds(c) {
		return nil
	}
	f := r.fold[key]
	if f == nil {
		f = &folded{at: c.Position.Partition}
		r.fold[strings.Clone(key)] = f
		if r.bytes += int64(len(key)) + foldedOverhead; r.bytes > r.memory {
			r.split()
		}
	}
	switch { // what is newer by its version may be read before, in another partition
	case c.Kind == stream.Access:
		if c.Version > f.access {
			f.access, f.said = c.Version, c.Position.Partition
		}
	case c.Kind == stream.Invalid:
		if stream.CheckID(c.ID) == nil && !strings.HasSuffix(string(c.Raw.Key), stream.AccessSuffix) {
			f.poison = max(f.poison, c.Version)
		}
	case c.Version < f.version:
	case c.Kind == stream.Delete:
		f.version, f.at, f.deleted, f.digest = c.Version, c.Position.Partition, true, [8]byte{}
	default:
		f.version, f.at, f.deleted, f.digest = c.Version, c.Position.Partition, false, digest(contentOf(c))
	}
	if states, ok := history[key]; ok {
		if c.Position.Offset < r.ends[c.Position.Partition] {
			states = states[:0] // the index is past the earlier ones when it is looked at
		}
		history[key] = append(states, *f)
	}
	return nil
}

// contentOf is the revision that a change makes, without its entries.
func contentOf(c *stream.Change) *vectordb.Revision {
	d := c.Document
	rev := &vectordb.Revision{
		Text: d.Text, ContentType: cmp.Or(d.ContentType, stream.TextPlain), Title: d.Title, URL: d.URL, UpdatedAt: d.UpdatedAt, Metadata: d.Metadata, Tenant: c.Tenant, ACL: d.ACL,
	}
	if rev.UpdatedAt.IsZero() {
		rev.UpdatedAt = c.Time
	}
	if rev.ContentType == stream.TextHTML {
		if page, err := htmltext.Convert(d.Text); err == nil {
			rev.Text, rev.Title = page.Markdown, cmp.Or(rev.Title, page.Title)
		}
	}
	return rev
}

// digest identifies what a revision says: its text, and who may read it just as much.
func digest(r *vectordb.Revision) [8]byte {
	said := struct {
		Text, ContentType, Title, URL, Tenant string
		UpdatedAt                             int64
		Metadata                              map[string]any `json:",omitempty"`
		ACL                                   []string
	}{r.Text, r.ContentType, r.Title, r.URL, r.Tenant, r.UpdatedAt.UnixMicro(), r.Metadata, r.ACL}
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(said) // a map's names in their order; the values are such as have a spelling
	return [8]byte(h.Sum(nil))
}

// weight is about how many bytes revisions take.
func weight(revs []vectordb.Revision) (n int) {
	for i := range revs {
		n += len(revs[i].Text)
		for j := range revs[i].Entries {
			n += 4 * len(revs[i].Entries[j].Vector)
		}
	}
	return n
}

// split leaves half of the slice for later.
func (r *verification) split() {
	for r.bytes > r.memory && r.slice.bits < 63 {
		r.slice = share{r.slice.bits + 1, r.slice.prefix << 1}
		r.later = append(r.later, share{r.slice.bits, r.slice.prefix | 1})
		for key := range r.fold {
			if !r.slice.holds(hash(key)) {
				delete(r.fold, key)
				r.bytes -= int64(len(key)) + foldedOverhead
			}
		}
	}
}

// pace holds the rate, and tells how far it is.
func (r *verification) pace(ctx context.Context, n int64) error {
	r.paced += n
	if r.paced%32 == 0 && time.Since(r.told) > time.Second {
		r.told = time.Now()
		if r.tell != nil {
			report := r.report
			report.Took = time.Since(r.begun).Round(time.Millisecond).String()
			applied, _, _ := r.g.progress.totals()
			all := float64(applied+r.x.documents(r.g)) * (1 + float64(len(r.later)))
			report.Share = min(.99, float64(r.paced)/max(1, all))
			r.tell(report)
		}
	}
	if r.Rate == 0 {
		return nil
	}
	now := time.Now()
	if r.due.IsZero() {
		r.due = r.begun
	}
	if earliest := now.Add(-verifyBurst); r.due.Before(earliest) {
		r.due = earliest // a wait for the index, or for others at work, is not made up for
	}
	r.due = r.due.Add(time.Duration(float64(n) / float64(r.Rate) * float64(time.Second)))
	if ahead := r.due.Sub(now); ahead > 10*time.Millisecond {
		return sleep(ctx, ahead)
	}
	return nil
}

// documents is how many a generation holds, 0 if the store does not say.
func (x *Indexer) documents(g *generation) int64 {
	ctx, cancel := context.WithTimeout(x.ctx, time.Second)
	defer cancel()
	stats, err := x.config.Store.Stats(ctx, g.name)
	if err != nil {
		return 0
	}
	return int64(stats.Documents)
}

// differs tells how what is stored differs from what the log says; "" if it does not.
func (r *verification) differs(ctx context.Context, rev *vectordb.Revision, f *folded) (kind, detail string, err error) {
	live := rev.Version > 0 && !rev.Deleted
	if r.ghosts {
		kind, detail = ghost(rev, f)
		return kind, detail, nil
	}
	switch {
	case (f.version == 0 || f.deleted) && !live:
		return "", "", nil
	case f.version == 0 && f.poison > rev.Version:
		// Compaction left of the document only a record that is no change; what was there before it goes on being served.
		return r.inconsistent(ctx, rev)
	case f.deleted:
		return Orphaned, "the log has deleted it", nil
	case f.version == 0:
		return Orphaned, "the log does not hold it", nil
	case rev.Deleted:
		return Missing, "the index has deleted it", nil
	case !live:
		return Missing, "it is not in the index", nil
	case rev.Version < f.version:
		return Stale, "the log has a newer version", nil
	case rev.Version > f.version:
		return Stale, "the log has no such version; only a replay into a new generation mends that", nil
	case !sameAccess(rev, f):
		return Stale, "the log has another access for it", nil
	case digest(rev) != f.digest:
		return Mixed, "its text or fields are not those of its version", nil
	}
	return r.inconsistent(ctx, rev)
}

// sameAccess tells whether a revision's access is that of the log.
func sameAccess(rev *vectordb.Revision, f *folded) bool {
	return rev.Access.Version == f.access || f.access == 0 && rev.Access.Clear
}

// inconsistent tells whether entries are not those that the recipe makes of the stored text, or their vectors none that the model could have made.
func (r *verification) inconsistent(ctx context.Context, rev *vectordb.Revision) (kind, detail string, err error) {
	if !r.parts.Outside {
		if err := r.x.gate.enter(ctx, false); err != nil {
			return "", "", err
		}
		defer r.x.gate.leave()
	}
	splitAs := rev.ContentType
	if splitAs == stream.TextHTML {
		splitAs = stream.TextMarkdown
	}
	chunks, err := r.parts.Chunker.Split(ctx, splitAs, rev.Text)
	if problem := chunkerProblem(err); problem != nil {
		return Mixed, problem.Detail, nil
	}
	if err != nil {
		return "", "", fmt.Errorf("cut %q: %w", rev.Key, err)
	}
	if len(chunks) != len(rev.Entries) {
		return Mixed, fmt.Sprintf("it has %d chunks, its text makes %d", len(rev.Entries), len(chunks)), nil
	}
	for i, chunk := range chunks {
		e := &rev.Entries[i]
		in := chunk.Input(rev.Text)
		sum := sha256.Sum256([]byte(in))
		if e.Start != chunk.Start || e.End != chunk.End || e.Hash != vectordb.Hash(sum[:16]) {
			return Mixed, fmt.Sprintf("chunk %d is not the one that its text makes", i), nil
		}
		if len(e.Vector) != r.g.made.Dim {
			return BadVector, fmt.Sprintf("the vector of chunk %d has %d dimensions, not %d", i, len(e.Vector), r.g.made.Dim), nil
		}
		square := 0.0
		for _, x := range e.Vector {
			square += float64(x) * float64(x)
		}
		length := math.Sqrt(square)
		if blank := length == 0 && embedder.Blank(in); !blank && !(math.Abs(length-1) <= unitTolerance) {
			return BadVector, fmt.Sprintf("the vector of chunk %d has the length %.4g", i, length), nil
		}
	}
	return "", "", nil
}

// resolve looks at suspects again, and reports and repairs those that are wrong indeed.
func (r *verification) resolve(ctx context.Context, keys []string) error {
	ends, err := r.look(ctx)
	if err != nil {
		return err
	}
	history := make(map[string][]folded, len(keys))
	for _, key := range keys {
		state := folded{}
		if f := r.fold[key]; f != nil {
			state = *f
		}
		history[key] = []folded{state}
	}
	read := func(c *stream.Change) error { return r.read(ctx, c, history) }
	if err := r.log.until(ctx, ends, read); err != nil {
		return err
	}
	if err := r.await(ctx, ends); err != nil {
		return err
	}
	stored, err := r.x.config.Store.Current(ctx, r.g.name, keys)
	if err != nil {
		return fmt.Errorf("read stored entries: %w", err)
	}
	// What the index holds may be newer than that end, but not newer than this one. What is below the first is settled, so only it decides what counts as past.
	now, err := r.x.config.Log.Ends(ctx)
	if err != nil {
		return err
	}
	if err := r.log.until(ctx, now, read); err != nil {
		return err
	}
	var wrong []Finding
	var states []folded
	for i, key := range keys {
		if !r.mine(key) { // the fold has grown so much meanwhile that it goes into a later slice
			continue
		}
		finding, state, err := r.judge(ctx, &stored[i], history[key])
		if err != nil {
			return err
		}
		if finding != nil {
			wrong, states = append(wrong, *finding), append(states, state)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	if r.ghosts {
		if err := r.banish(ctx, wrong); err != nil {
			return err
		}
	} else if r.Repair {
		if err := r.repair(ctx, wrong, states); err != nil {
			return err
		}
	}
	for _, finding := range wrong {
		r.count(finding)
	}
	return nil
}

// await blocks until the generation shows everything below the ends.
func (r *verification) await(ctx context.Context, ends []stream.End) error {
	var last []stream.Position
	for _, end := range ends {
		if end.Offset > 0 {
			last = append(last, stream.Position{Partition: end.Partition, Offset: end.Offset - 1})
		}
	}
	waiting, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	err := r.g.progress.waitApplied(waiting, last)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: it is not at what the log held %s ago", ErrNotCaughtUp, verifyWait)
	}
	return err
}

// judge decides on a document that was read after the first of the states was searchable. nil: it is right.
func (r *verification) judge(ctx context.Context, rev *vectordb.Revision, states []folded) (*Finding, folded, error) {
	var kind, detail string
	state := states[0]
	for i := range states {
		k, d, err := r.differs(ctx, rev, &states[i])
		if err != nil || k == "" {
			return nil, folded{}, err
		}
		// What is wrong is said of the state that the index shows, if it is one of them: to one before it a document that came meanwhile would be an orphan.
		if i == 0 || states[i].version == rev.Version {
			kind, detail, state = k, d, states[i]
		}
	}
	if !r.ghosts && (kind == Missing || kind == Stale && rev.Version < state.version) {
		rejected, err := r.rejected(ctx, rev.Key, state)
		if err != nil {
			return nil, folded{}, err
		}
		if rejected {
			r.report.DeadLettered++
			if rev.Version == 0 || rev.Deleted {
				return nil, folded{}, nil
			}
			if !slices.ContainsFunc(states, func(f folded) bool { return sameAccess(rev, &f) }) {
				// The version that is served is not the log's newest, and who may read it is.
				kind, detail = Stale, "the log has another access for it"
				state.version, state.deleted, state.digest = rev.Version, false, digest(rev)
			} else if kind, detail, err = r.inconsistent(ctx, rev); err != nil || kind == "" {
				return nil, folded{}, err
			}
		}
	}
	tenant, id := stream.SplitKey(rev.Key)
	return &Finding{ID: id, Tenant: tenant, Kind: kind, Detail: detail, Stored: rev.Version, Logged: state.version, access: ghostAccess(rev, &state)}, state, nil
}

// rejected tells whether the newest content of a document is a dead letter of the generation, open or discarded.
func (r *verification) rejected(ctx context.Context, key string, state folded) (bool, error) {
	for _, discarded := range []bool{false, true} {
		letters, err := r.x.config.Letters.List(ctx, stream.LetterQuery{Key: key, Discarded: discarded})
		if err != nil {
			return false, err
		}
		for i := range letters {
			l := &letters[i]
			if !foreign(l) && l.Position.Partition == state.at && l.Position.Offset == stream.OffsetOf(state.version) && slices.Contains(l.Generations, r.g.name) {
				return true, nil
			}
		}
	}
	return false, nil
}

func (r *verification) count(f Finding) {
	switch f.Kind {
	case Missing:
		r.report.Missing++
	case Stale:
		r.report.Stale++
	case Orphaned:
		r.report.Orphaned++
	case Mixed:
		r.report.Mixed++
	case BadVector:
		r.report.BadVector++
	}
	if f.Repaired != nil && *f.Repaired {
		r.report.Repaired++
	}
	if len(r.report.Findings) < verifyKept {
		r.report.Findings = append(r.report.Findings, f)
	}
}

// repair puts findings right: what the log holds is applied again at its version, what it does not hold is deleted at the version that is stored.
func (r *verification) repair(ctx context.Context, wrong []Finding, states []folded) error {
	var wanted []stream.Position
	for i := range wrong {
		wanted = append(wanted, states[i].places()...)
	}
	changes, err := r.x.changesAt(ctx, wanted)
	if err != nil {
		return err
	}
	for i := range wrong {
		f, state := &wrong[i], states[i]
		err := r.mend(ctx, f, state, changes)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		mended := err == nil
		f.Repaired = &mended
		if err != nil {
			f.Detail += "; not repaired: " + err.Error()
		}
	}
	return nil
}

func (r *verification) mend(ctx context.Context, f *Finding, state folded, changes map[stream.Position]*stream.Change) error {
	key := stream.Key(f.Tenant, f.ID)
	if f.Kind == Orphaned || f.access > 0 {
		gone := f.gone(max(f.Stored, state.version))
		if err := r.x.config.Store.Apply(ctx, r.g.name, vectordb.Write{Revisions: []vectordb.Revision{gone}, Rewrite: true}); err != nil {
			return err
		}
	}
	for _, at := range state.places() {
		c := changes[at]
		if c == nil || c.Key() != key { // compaction has taken it: there is a newer one, which the pipeline applies
			continue
		}
		if problem, err := r.g.redo(ctx, c, true); err != nil {
			return err
		} else if problem != nil {
			return problem
		}
	}
	if delayed, ok := r.x.config.Store.(vectordb.Delayed); ok {
		if err := delayed.Visible(ctx, r.g.name); err != nil {
			return err
		}
	}
	stored, err := r.x.config.Store.Current(ctx, r.g.name, []string{key})
	if err != nil {
		return err
	}
	kind, detail, err := r.differs(ctx, &stored[0], &state)
	if err == nil && kind != "" && stored[0].Version <= max(state.version, f.Stored) {
		err = errors.New(detail)
	}
	return err
}

// changesAt reads single changes from the log. What is not there any more is absent.
func (x *Indexer) changesAt(ctx context.Context, wanted []stream.Position) (map[stream.Position]*stream.Change, error) {
	changes := make(map[stream.Position]*stream.Change, len(wanted))
	ends, err := x.config.Log.Ends(ctx)
	if err != nil || len(wanted) == 0 {
		return changes, err
	}
	from, to := make(map[int32]int64, len(ends)), make(map[int32]int64, len(ends))
	for _, end := range ends {
		from[end.Partition] = end.Offset
	}
	is := make(map[stream.Position]bool, len(wanted))
	for _, at := range wanted {
		is[at] = true
		from[at.Partition] = min(from[at.Partition], at.Offset)
		to[at.Partition] = max(to[at.Partition], at.Offset+1)
	}
	r, err := x.readLog(ctx, from)
	if err != nil {
		return nil, err
	}
	defer r.close()
	for i := range ends {
		if last, ok := to[ends[i].Partition]; ok {
			ends[i].Offset = min(ends[i].Offset, last)
		}
	}
	err = r.until(ctx, ends, func(c *stream.Change) error {
		if is[c.Position] {
			kept := *c
			changes[c.Position] = &kept
		}
		return nil
	})
	return changes, err
}
