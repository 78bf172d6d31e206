package milvus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"
	"github.com/milvus-io/milvus-sdk-go/v2/merr"

	"github.com/liverag/liverag/vectordb"
)

const (
	prefix = "liverag_"
	// property is the collection's property that says which generation it is, as JSON.
	property = "liverag.generation"
	// liveName is what the alias of a corpus ends in; no generation is called so.
	liveName = "live"
	// maxVarchar is how many bytes a VARCHAR holds; servers in Python count characters.
	maxVarchar = 65535
	// maxTags is how many values an array field holds.
	maxTags = 4096
)

// described is the property's JSON.
type described struct {
	Format int    `json:"format"`
	Corpus string `json:"corpus"`
	vectordb.Generation
}

// format is that of rows. One of another format is not opened.
const format = 1

func checkCorpus(corpus string) error {
	ok := len(corpus) >= 1 && len(corpus) <= 150
	for i := range len(corpus) {
		c := corpus[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.')
	}
	if !ok {
		return invalidf("corpus %q: a name is up to 150 letters, digits, underscores, dots and dashes", corpus)
	}
	return nil
}

// collectionName is a generation's collection. Milvus allows letters, digits and underscores, so the others become one with their code.
func (s *Store) collectionName(generation string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for i := range len(s.config.Corpus) {
		switch c := s.config.Corpus[i]; c {
		case '-', '.':
			fmt.Fprintf(&b, "_%02x_", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + "_" + generation
}

// describe asks what a collection is. It is nil if there is none.
func (s *Store) describe(ctx context.Context, collection string) (*entity.Collection, error) {
	c, err := once(ctx, s.config.Timeouts.Catalog, func(ctx context.Context) (*entity.Collection, error) {
		return s.client.DescribeCollection(ctx, collection)
	})
	switch {
	case err == nil:
		return c, nil
	case s.isClosed():
		return nil, vectordb.ErrClosed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case classify(err) == missing:
		return nil, nil
	}
	return nil, explain(err)
}

// read tells which generation of this corpus a collection is; ours is false for any other collection.
func (s *Store) read(c *entity.Collection) (g *generation, ours bool, err error) {
	var d described
	text, ok := c.Properties[property]
	if !ok || json.Unmarshal([]byte(text), &d) != nil || d.Corpus != s.config.Corpus {
		return nil, false, nil
	}
	g = &generation{about: d.Generation, collection: c.Schema.CollectionName, id: c.ID, recent: map[string]*recently{}, known: map[string]*known{}, headless: map[headless]time.Time{}, lexical: map[string]*lexicalStats{}}
	for _, f := range c.Schema.Fields {
		g.sparse = g.sparse || f.Name == fieldTerms
	}
	if d.Format != format {
		err = fmt.Errorf("generation %s: its collection %s has rows of format %d, this program reads %d; build it again from the log, or use the program that wrote it: %w",
			d.Name, c.Schema.CollectionName, d.Format, format, vectordb.ErrFormat)
	}
	return g, true, err
}

// attach opens a generation that is at the server.
func (s *Store) attach(ctx context.Context, name string) (*generation, error) {
	c, err := s.describe(ctx, s.collectionName(name))
	if err != nil {
		return nil, fmt.Errorf("open generation %s: %w", name, err)
	}
	if c == nil {
		return nil, fmt.Errorf("generation %s: %w", name, vectordb.ErrNoGeneration)
	}
	g, ours, err := s.read(c)
	if err != nil {
		return nil, err
	}
	if !ours || g.about.Name != name {
		return nil, fmt.Errorf("generation %s: the collection %s belongs to something else: %w", name, c.Name, vectordb.ErrNoGeneration)
	}
	if err := s.prepare(ctx, g); err != nil {
		return nil, err
	}
	return s.adopt(g)
}

// Create implements vectordb.Catalog. Several processes may create one generation at the same time; what one of them left half done the next one finishes.
func (s *Store) Create(ctx context.Context, about vectordb.Generation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.isClosed() {
		return vectordb.ErrClosed
	}
	if err := about.Check(); err != nil {
		return err
	}
	if about.Name == liveName {
		return invalidf("generation %s: the name is the alias's", about.Name)
	}
	name := s.collectionName(about.Name)
	c, err := s.describe(ctx, name)
	if err != nil {
		return fmt.Errorf("create generation %s: %w", about.Name, err)
	}
	if c == nil {
		_, err = once(ctx, s.config.Timeouts.Catalog, func(ctx context.Context) (bool, error) { return true, s.create(ctx, name, about) })
		var failed error
		if err != nil {
			failed = err // perhaps because another process was faster
		}
		if c, err = s.describe(ctx, name); err == nil && c == nil {
			err = errors.Join(failed, errNoCollection)
		}
		if err != nil {
			if s.isClosed() {
				return vectordb.ErrClosed
			}
			return fmt.Errorf("create generation %s: %w", about.Name, explain(err))
		}
	}
	g, ours, err := s.read(c)
	switch {
	case err != nil:
		return err
	case !ours:
		return fmt.Errorf("create generation %s: the collection %s belongs to something else: %w", about.Name, name, vectordb.ErrMismatch)
	case g.about != about:
		return fmt.Errorf("generation %s: %w", about.Name, vectordb.ErrMismatch)
	}
	if err := s.prepare(ctx, g); err != nil {
		return err
	}
	_, err = s.adopt(g)
	return err
}

// create makes a collection. One shard: then a search sees the rows of one request all at once, and after those of the request before.
func (s *Store) create(ctx context.Context, name string, about vectordb.Generation) error {
	d, err := json.Marshal(described{Format: format, Corpus: s.config.Corpus, Generation: about})
	if err != nil {
		return err
	}
	varchar := func(field string, length int64) *entity.Field {
		return entity.NewField().WithName(field).WithDataType(entity.FieldTypeVarChar).WithMaxLength(length)
	}
	schema := entity.NewSchema().WithName(name).WithDescription("liverag: generation " + about.Name + " of corpus " + s.config.Corpus).
		WithField(varchar(fieldRow, 128).WithIsPrimaryKey(true)).
		WithField(entity.NewField().WithName(fieldDocument).WithDataType(entity.FieldTypeInt64)).
		WithField(varchar(fieldKey, maxVarchar)).
		WithField(entity.NewField().WithName(fieldScope).WithDataType(entity.FieldTypeInt64)).
		WithField(entity.NewField().WithName(fieldTags).WithDataType(entity.FieldTypeArray).WithElementType(entity.FieldTypeInt64).WithMaxCapacity(maxTags)).
		WithField(entity.NewField().WithName(fieldOrder).WithDataType(entity.FieldTypeJSON)).
		WithField(varchar(fieldHead, maxVarchar)).
		WithField(varchar(fieldBody, maxVarchar)).
		WithField(varchar(fieldText, maxVarchar)).
		WithField(entity.NewField().WithName(fieldVector).WithDataType(entity.FieldTypeFloatVector).WithDim(int64(about.Dim)))
	if s.server.Sparse {
		schema = schema.WithField(entity.NewField().WithName(fieldTerms).WithDataType(entity.FieldTypeSparseVector))
	}
	return s.client.CreateCollection(ctx, schema, 1, client.WithConsistencyLevel(entity.ClBounded), client.WithCollectionProperty(property, string(d)))
}

// prepare gives a collection its indexes, unless it has them, and has it loaded.
func (s *Store) prepare(ctx context.Context, g *generation) error {
	_, err := call(ctx, s, g, "index", s.config.Timeouts.Catalog, func(ctx context.Context) (bool, error) {
		if list, err := s.client.DescribeIndex(ctx, g.collection, fieldVector); err == nil && len(list) > 0 {
			return true, nil
		}
		return true, s.index(ctx, g)
	})
	if err != nil {
		return err
	}
	_, err = call(ctx, s, g, "load", s.config.Timeouts.Load, func(ctx context.Context) (bool, error) { return true, s.load(ctx, g.collection) })
	return err
}

// index makes the indexes. The one of vectors comes last: where it is, the others are.
func (s *Store) index(ctx context.Context, g *generation) error {
	for _, field := range []string{fieldDocument, fieldScope} {
		index := entity.NewScalarIndex()
		if s.server.Inverted {
			index = entity.NewGenericIndex("", "INVERTED", map[string]string{})
		}
		if err := s.client.CreateIndex(ctx, g.collection, field, index, true); err != nil {
			if ctx.Err() != nil || classify(err) != fatal {
				return err
			}
			s.config.Logger.Info("no index over a field: filters read more rows", "collection", g.collection, "field", field, "error", err)
		}
	}
	if g.sparse {
		index, err := entity.NewIndexSparseInverted(entity.IP, 0)
		if err != nil {
			return err
		}
		if err := s.client.CreateIndex(ctx, g.collection, fieldTerms, index, true); err != nil {
			return err
		}
	}
	// Vectors have unit length, so the inner product is the cosine; that of a vector of zeros is defined.
	var index entity.Index
	var err error
	if s.server.Delayed {
		index, err = entity.NewIndexHNSW(entity.IP, 16, 200)
	} else {
		// The small server's graph loses most of what has equal vectors; it is for small corpora, which need none.
		index, err = entity.NewIndexFlat(entity.IP)
	}
	if err != nil {
		return err
	}
	return s.client.CreateIndex(ctx, g.collection, fieldVector, index, true)
}

// Drop implements vectordb.Catalog.
func (s *Store) Drop(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.isClosed() {
		return vectordb.ErrClosed
	}
	if vectordb.CheckName(name) != nil {
		return nil
	}
	collection := s.collectionName(name)
	c, err := s.describe(ctx, collection)
	if err == nil && c != nil {
		g, ours, _ := s.read(c)
		if !ours || g.about.Name != name {
			return fmt.Errorf("drop generation %s: the collection %s belongs to something else", name, collection)
		}
		_, err = once(ctx, s.config.Timeouts.Catalog, func(ctx context.Context) (bool, error) {
			// Later servers refuse to drop what an alias names.
			if s.promoted(ctx) == name {
				if err := s.client.DropAlias(ctx, s.Alias()); err != nil {
					return false, fmt.Errorf("drop the alias %s: %w", s.Alias(), err)
				}
			}
			return true, s.client.DropCollection(ctx, collection)
		})
		if err != nil && classify(err) == missing {
			err = nil
		}
	}
	s.mu.Lock()
	if s.generations != nil {
		delete(s.generations, name)
	}
	closed := s.closed
	s.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case closed:
		return vectordb.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("drop generation %s: %w", name, explain(err))
}

// List implements vectordb.Catalog.
func (s *Store) List(ctx context.Context) ([]vectordb.Generation, error) {
	if s.isClosed() {
		return nil, vectordb.ErrClosed
	}
	names, err := once(ctx, s.config.Timeouts.Catalog, s.collections)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("list generations: %w", explain(err))
	}
	var list []vectordb.Generation
	for _, name := range names {
		if !strings.HasPrefix(name, s.collectionName("")) {
			continue
		}
		c, err := s.describe(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("list generations: %w", err)
		}
		if c == nil {
			continue // dropped meanwhile
		}
		if g, ours, _ := s.read(c); ours {
			list = append(list, g.about)
		}
	}
	slices.SortFunc(list, func(a, b vectordb.Generation) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// collections names everything there is. The SDK's own call goes by ids, which servers in Python leave out.
func (s *Store) collections(ctx context.Context) ([]string, error) {
	grpc, ok := s.client.(*client.GrpcClient)
	if !ok || grpc.Service == nil {
		return nil, client.ErrClientNotReady
	}
	answer, err := grpc.Service.ShowCollections(ctx, &milvuspb.ShowCollectionsRequest{})
	if err := merr.CheckRPCCall(answer, err); err != nil {
		return nil, err
	}
	return answer.GetCollectionNames(), nil
}

// Alias is the server-side alias that Promote moves: for other programs that look at the collections. liverag itself goes by the collections' own names.
func (s *Store) Alias() string { return s.collectionName(liveName) }

// promoted tells which generation the alias names, "" if none. (Servers in Python give all collections one id, but their properties apart.)
func (s *Store) promoted(ctx context.Context) string {
	c, err := s.client.DescribeCollection(ctx, s.Alias())
	if err != nil {
		return ""
	}
	g, ours, _ := s.read(c)
	if !ours {
		return ""
	}
	return g.about.Name
}

// Promote points the server-side alias at a generation. Errors: ErrNoGeneration; any other may be tried again.
func (s *Store) Promote(ctx context.Context, generation string) error {
	g, err := s.generation(ctx, generation)
	if err != nil {
		return err
	}
	_, err = call(ctx, s, g, "promote", s.config.Timeouts.Catalog, func(ctx context.Context) (bool, error) {
		altered := s.client.AlterAlias(ctx, g.collection, s.Alias())
		if altered == nil {
			return true, nil
		}
		// There is none yet, or there was one that another process has just made.
		if created := s.client.CreateAlias(ctx, g.collection, s.Alias()); created != nil {
			if again := s.client.AlterAlias(ctx, g.collection, s.Alias()); again != nil {
				return false, fmt.Errorf("move the alias %s: %w", s.Alias(), errors.Join(again, created))
			}
		}
		return true, nil
	})
	return err
}
