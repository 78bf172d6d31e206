package milvus

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Server is what is known of a server.
type Server struct {
	// Version is as the server tells it, like v2.3.5-lite.
	Version string
	// Sparse: it indexes sparse vectors; the lexical leg needs them.
	Sparse bool
	// Hybrid: it searches several fields in one call. liverag fuses by itself and does not use it.
	Hybrid bool
	// GroupBy: it groups hits by a field. liverag does not use it.
	GroupBy bool
	// Inverted: it has inverted indexes over scalar fields; older ones have tries and sorted lists.
	Inverted bool
	// Delayed: it acknowledges a write before a search finds it.
	Delayed bool
}

// Missing says in words, for people, what the server can't do and what that means for them.
func (s Server) Missing() []string {
	var list []string
	if !s.Sparse {
		list = append(list, "no sparse vectors: only dense search; lexical and hybrid questions are refused. Milvus 2.4 and later have them")
	}
	if !s.Inverted {
		list = append(list, "no inverted indexes: filters read more rows; nothing else changes")
	}
	if s.Delayed {
		list = append(list, "a write is acknowledged some 0.3 s before searches find it; freshness counts that")
	}
	return list
}

// Server tells what was found out about the server when the store was opened.
func (s *Store) Server() Server { return s.server }

var versionNumber = regexp.MustCompile(`(\d+)\.(\d+)\.(\d+)`)

// knownServer reads what a version can do. Of one that it does not know it says so.
func knownServer(version string) (s Server, known bool) {
	s.Version = version
	m := versionNumber.FindStringSubmatch(version)
	if m == nil {
		return s, false
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	modern := major > 2 || minor >= 4
	s.Sparse, s.Hybrid, s.GroupBy, s.Inverted = modern, modern, modern, modern
	// The small server in Python reads its own writes at once. The full one in a wheel calls itself v…-lite.
	s.Delayed = !strings.HasPrefix(version, "milvus_lite")
	return s, true
}

// probe asks what the server is and can do.
func (s *Store) probe(ctx context.Context) error {
	version, err := once(ctx, s.config.Timeouts.Catalog, s.client.GetVersion)
	if err != nil {
		return fmt.Errorf("ask for its version: %w", err)
	}
	known := false
	if s.server, known = knownServer(version); known {
		return nil
	}
	s.server, err = once(ctx, s.config.Timeouts.Catalog, func(ctx context.Context) (Server, error) { return tryServer(ctx, s.client, version) })
	if err != nil {
		return fmt.Errorf("find out what version %q can do: %w", version, err)
	}
	return nil
}

// tryServer finds out by trying, with an empty collection that it drops again.
func tryServer(ctx context.Context, c client.Client, version string) (Server, error) {
	s := Server{Version: version, Delayed: true}
	name := "liverag_probe_" + strings.ToLower(rand.Text())
	schema := entity.NewSchema().WithName(name).WithDescription("liverag finds out what this server can do; safe to drop").
		WithField(entity.NewField().WithName("pk").WithDataType(entity.FieldTypeVarChar).WithMaxLength(16).WithIsPrimaryKey(true)).
		WithField(entity.NewField().WithName("vector").WithDataType(entity.FieldTypeFloatVector).WithDim(4)).
		WithField(entity.NewField().WithName("sparse").WithDataType(entity.FieldTypeSparseVector)).
		WithField(entity.NewField().WithName("word").WithDataType(entity.FieldTypeVarChar).WithMaxLength(16))
	if err := c.CreateCollection(ctx, schema, 1); err != nil {
		// A server that does not know the type may also say so here.
		if ctx.Err() != nil || status.Code(err) == codes.Unavailable {
			return s, err
		}
		return s, nil
	}
	defer func() { _ = c.DropCollection(context.WithoutCancel(ctx), name) }()
	sparse, err := entity.NewIndexSparseInverted(entity.IP, 0)
	if err != nil {
		return s, err
	}
	s.Sparse = c.CreateIndex(ctx, name, "sparse", sparse, true) == nil
	s.Inverted = c.CreateIndex(ctx, name, "word", entity.NewGenericIndex("", "INVERTED", map[string]string{}), true) == nil
	params, err := entity.NewIndexHNSWSearchParam(16)
	if err != nil {
		return s, err
	}
	leg := client.NewANNSearchRequest("vector", entity.IP, "", []entity.Vector{entity.FloatVector{1, 0, 0, 0}}, params, 1)
	_, err = c.HybridSearch(ctx, name, nil, 1, []string{"pk"}, client.NewRRFReranker(), []*client.ANNSearchRequest{leg})
	s.Hybrid = status.Code(err) != codes.Unimplemented // that nothing is loaded is another error
	s.GroupBy = s.Hybrid                               // both came with 2.4; a server without grouping ignores the wish
	return s, ctx.Err()
}
