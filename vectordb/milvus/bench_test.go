package milvus

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"github.com/liverag/liverag/vectordb"
)

// benchDim is that of the default model.
const benchDim = 384

// corpus makes documents of five chunks, some 600 bytes and a unit vector near one of 200 centres each.
func corpus(seed uint64, documents int) []vectordb.Revision {
	r := rand.New(rand.NewPCG(seed, 7))
	centres := make([][]float32, 200)
	c := rand.New(rand.NewPCG(1, 1))
	for i := range centres {
		centres[i] = direction(c, nil, 1)
	}
	words := strings.Fields("the store keeps rows of chunks with vectors while searches and writers run side by side over one shard and heads decide which version shows")
	list := make([]vectordb.Revision, documents)
	for d := range list {
		rev := vectordb.Revision{
			Key: fmt.Sprintf("doc-%d-%06d", seed, d), Version: 1, ContentType: "text/markdown", Title: fmt.Sprint("Document ", d), UpdatedAt: time.Unix(int64(1e9+d), 0),
			Metadata: map[string]any{"lang": []string{"en", "de", "fr", "it"}[d%4], "year": float64(2000 + d%25)},
		}
		for i := range 5 {
			var b strings.Builder
			for b.Len() < 600 {
				b.WriteString(words[r.IntN(len(words))])
				b.WriteByte(' ')
			}
			start := len(rev.Text)
			rev.Text += b.String() + "\n"
			e := vectordb.Entry{Start: start, End: start + b.Len(), Tokens: 120, Vector: direction(r, centres[r.IntN(len(centres))], 0.4)}
			e.Hash[0], e.Hash[1], e.Hash[2], e.Hash[3] = byte(d), byte(d>>8), byte(d>>16), byte(i)
			rev.Entries = append(rev.Entries, e)
		}
		list[d] = rev
	}
	return list
}

// direction is a random unit vector near a centre, if there is one.
func direction(r *rand.Rand, centre []float32, spread float64) []float32 {
	v := make([]float32, benchDim)
	sum := 0.0
	for i := range v {
		x := r.NormFloat64() * spread / math.Sqrt(benchDim)
		if centre != nil {
			x += float64(centre[i])
		}
		v[i] = float32(x)
		sum += x * x
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / math.Sqrt(sum))
	}
	return v
}

func percentile(times []time.Duration, p float64) float64 {
	slices.Sort(times)
	return float64(times[min(len(times)-1, int(p*float64(len(times))))].Microseconds()) / 1000
}

// BenchmarkApply writes documents of five chunks through the store and, in turns with it, the same number of chunks with their texts and vectors by the SDK alone.
// As in the pipeline, what the store has of a batch was asked (Current) while the batch before it was written.
//
//	MILVUS_FULL=… go test -run - -bench Apply -benchtime 10x ./vectordb/milvus
func BenchmarkApply(b *testing.B) {
	s := open(b, Config{Address: address(b, "MILVUS_FULL", "full")})
	ctx := b.Context()
	if err := s.Create(ctx, vectordb.Generation{Name: "g", Fingerprint: "f", Dim: benchDim, Origin: "o"}); err != nil {
		b.Fatal(err)
	}
	plain := s.collectionName("plain")
	schema := entity.NewSchema().WithName(plain).
		WithField(entity.NewField().WithName("pk").WithDataType(entity.FieldTypeVarChar).WithMaxLength(128).WithIsPrimaryKey(true)).
		WithField(entity.NewField().WithName("text").WithDataType(entity.FieldTypeVarChar).WithMaxLength(maxVarchar)).
		WithField(entity.NewField().WithName("meta").WithDataType(entity.FieldTypeJSON)).
		WithField(entity.NewField().WithName("vector").WithDataType(entity.FieldTypeFloatVector).WithDim(benchDim))
	if err := s.client.CreateCollection(ctx, schema, 1); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.client.DropCollection(context.Background(), plain) })
	index, err := entity.NewIndexHNSW(entity.IP, 16, 200)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.client.CreateIndex(ctx, plain, "vector", index, false); err != nil {
		b.Fatal(err)
	}
	if err := s.client.LoadCollection(ctx, plain, false); err != nil {
		b.Fatal(err)
	}
	const documents = 400 // 2,000 rows
	var ours, theirs time.Duration
	rows := 0
	next := corpus(9, documents)
	ask := func() error {
		keys := make([]string, len(next))
		for i := range next {
			keys[i] = next[i].Key
		}
		_, err := s.Current(ctx, "g", keys)
		return err
	}
	if err := ask(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		revisions := next
		rows += documents * len(revisions[0].Entries)
		next = corpus(uint64(rows)+10, documents)
		asked := make(chan error, 1)
		started := time.Now()
		go func() { asked <- ask() }()
		if err := s.Apply(ctx, "g", vectordb.Write{Revisions: revisions}); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(started)
		if err := <-asked; err != nil {
			b.Fatal(err)
		}

		var pks, texts []string
		var metas [][]byte
		var vectors [][]float32
		for _, r := range revisions {
			for i, e := range r.Entries {
				pks = append(pks, r.Key+"#"+strconv.Itoa(i))
				texts = append(texts, r.Text[e.Start:e.End])
				metas = append(metas, []byte(`{"lang":"en","year":2000}`))
				vectors = append(vectors, e.Vector)
			}
		}
		started = time.Now()
		_, err := s.client.Upsert(ctx, plain, "", entity.NewColumnVarChar("pk", pks), entity.NewColumnVarChar("text", texts),
			entity.NewColumnJSONBytes("meta", metas), entity.NewColumnFloatVector("vector", benchDim, vectors))
		if err != nil {
			b.Fatal(err)
		}
		theirs += time.Since(started)
	}
	b.ReportMetric(float64(rows)/ours.Seconds(), "rows/s")
	b.ReportMetric(float64(rows)/theirs.Seconds(), "rows/s-sdk")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "share")
}

// BenchmarkVisible edits one document and waits until every search finds it.
func BenchmarkVisible(b *testing.B) {
	s := open(b, Config{Address: address(b, "MILVUS_FULL", "full")})
	ctx := b.Context()
	if err := s.Create(ctx, vectordb.Generation{Name: "g", Fingerprint: "f", Dim: benchDim, Origin: "o"}); err != nil {
		b.Fatal(err)
	}
	r := corpus(1, 1)[0]
	var applied, visible []time.Duration
	for b.Loop() {
		started := time.Now()
		if err := s.Apply(ctx, "g", vectordb.Write{Revisions: []vectordb.Revision{r}}); err != nil {
			b.Fatal(err)
		}
		applied = append(applied, time.Since(started))
		if err := s.Visible(ctx, "g"); err != nil {
			b.Fatal(err)
		}
		visible = append(visible, time.Since(started))
		r.Version++
	}
	b.ReportMetric(percentile(applied, 0.5), "ms-apply-p50")
	b.ReportMetric(percentile(visible, 0.5), "ms-p50")
	b.ReportMetric(percentile(visible, 0.99), "ms-p99")
}

// BenchmarkSearch asks 100,000 chunks (or MILVUS_CHUNKS): as the store does, with the look-up of heads, and the SDK's search alone. MILVUS_PAUSE is how long to let
// the server rest after writing.
func BenchmarkSearch(b *testing.B) {
	s := open(b, Config{Address: address(b, "MILVUS_FULL", "full")})
	ctx := b.Context()
	if err := s.Create(ctx, vectordb.Generation{Name: "g", Fingerprint: "f", Dim: benchDim, Origin: "o"}); err != nil {
		b.Fatal(err)
	}
	chunks := 100_000
	if n, err := strconv.Atoi(os.Getenv("MILVUS_CHUNKS")); err == nil {
		chunks = n
	}
	for done := 0; done < chunks; done += 5000 {
		if err := s.Apply(ctx, "g", vectordb.Write{Revisions: corpus(uint64(done), 1000)}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Visible(ctx, "g"); err != nil {
		b.Fatal(err)
	}
	if pause, err := time.ParseDuration(os.Getenv("MILVUS_PAUSE")); err == nil {
		time.Sleep(pause) // for the server to seal and index what it got
	}
	g, err := s.generation(ctx, "g")
	if err != nil {
		b.Fatal(err)
	}
	filter, err := vectordb.ParseFilter([]byte(`{"lang":"en"}`))
	if err != nil {
		b.Fatal(err)
	}
	compared, err := vectordb.ParseFilter([]byte(`{"year":{"$gte":2020}}`))
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(9, 9))
	var vectors [][]float32
	for i := range uint64(100) {
		vectors = append(vectors, corpus(i<<32|1, 1)[0].Entries[0].Vector)
	}
	query := func() vectordb.Query { return vectordb.Query{Vector: vectors[r.IntN(len(vectors))]} }
	params, err := entity.NewIndexHNSWSearchParam(64)
	if err != nil {
		b.Fatal(err)
	}
	store := func(change func(*vectordb.Query)) func() error {
		return func() error {
			q := query()
			change(&q)
			hits, err := s.Search(ctx, "g", q)
			if err == nil && len(hits) == 0 {
				err = fmt.Errorf("no hits")
			}
			return err
		}
	}
	for _, c := range []struct {
		name string
		ask  func() error
	}{
		{"sdk", func() error {
			_, err := s.client.Search(ctx, g.collection, nil, reach("", nil, found), []string{fieldText}, []entity.Vector{entity.FloatVector(query().Vector)}, fieldVector, entity.IP, 26,
				params, client.WithSearchQueryConsistencyLevel(entity.ClBounded))
			return err
		}},
		{"store", store(func(*vectordb.Query) {})},
		{"store-depth50", store(func(q *vectordb.Query) { q.Depth = 50 })},
		{"store-equals", store(func(q *vectordb.Query) { q.Filter = filter })},
		{"store-compares", store(func(q *vectordb.Query) { q.Filter = compared })},
		{"store-id", store(func(q *vectordb.Query) {
			q.Filter = &vectordb.Filter{Op: vectordb.Eq, Field: "@id", Value: fmt.Sprintf("doc-0-%06d", r.IntN(1000))}
		})},
		{"store-principals", store(func(q *vectordb.Query) { q.Principals = []string{"user:a", "group:b"} })},
	} {
		b.Run(c.name, func(b *testing.B) {
			var times []time.Duration
			for b.Loop() {
				started := time.Now()
				if err := c.ask(); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(started))
			}
			b.ReportMetric(percentile(times, 0.5), "ms-p50")
			b.ReportMetric(percentile(times, 0.99), "ms-p99")
		})
	}
	for name, f := range map[string]func() error{
		"stats": func() error { g.stats = cachedStats{}; _, err := s.Stats(ctx, "g"); return err },
		"scan":  func() error { _, err := s.Scan(ctx, "g", "", 100); return err },
		"sweep": func() error { _, err := s.Sweep(ctx, "g"); return err },
	} {
		started := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		b.Logf("%s: %s", name, time.Since(started).Round(time.Millisecond))
	}
}
