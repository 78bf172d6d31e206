package milvus

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-proto/go-api/v2/schemapb"
	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/liverag/liverag/vectordb"
)

// faulty speaks the protocol and misbehaves as it is told to; it keeps nothing. What a working server does is tested on working servers.
type faulty struct {
	milvuspb.UnimplementedMilvusServiceServer
	login  error
	upsert func([]string) error // the rows' keys
	query  func() *commonpb.Status
	loads  atomic.Int64
	since  atomic.Pointer[[]uint64] // of each query that was answered: the server must have read its log up to then
}

var fine = &commonpb.Status{}

func (f *faulty) Connect(context.Context, *milvuspb.ConnectRequest) (*milvuspb.ConnectResponse, error) {
	return &milvuspb.ConnectResponse{Status: fine, ServerInfo: &commonpb.ServerInfo{}}, f.login
}

func (f *faulty) GetVersion(context.Context, *milvuspb.GetVersionRequest) (*milvuspb.GetVersionResponse, error) {
	return &milvuspb.GetVersionResponse{Status: fine, Version: "v2.3.5"}, nil
}

func (f *faulty) LoadCollection(context.Context, *milvuspb.LoadCollectionRequest) (*commonpb.Status, error) {
	f.loads.Add(1)
	return fine, nil
}

func (f *faulty) GetLoadingProgress(context.Context, *milvuspb.GetLoadingProgressRequest) (*milvuspb.GetLoadingProgressResponse, error) {
	return &milvuspb.GetLoadingProgressResponse{Status: fine, Progress: 100}, nil
}

func (f *faulty) HasCollection(context.Context, *milvuspb.HasCollectionRequest) (*milvuspb.BoolResponse, error) {
	return &milvuspb.BoolResponse{Status: fine, Value: true}, nil
}

func (f *faulty) DescribeIndex(context.Context, *milvuspb.DescribeIndexRequest) (*milvuspb.DescribeIndexResponse, error) {
	return &milvuspb.DescribeIndexResponse{Status: fine, IndexDescriptions: []*milvuspb.IndexDescription{{FieldName: fieldVector}}}, nil
}

func (f *faulty) DescribeCollection(_ context.Context, r *milvuspb.DescribeCollectionRequest) (*milvuspb.DescribeCollectionResponse, error) {
	if !strings.HasSuffix(r.CollectionName, "_g") {
		return &milvuspb.DescribeCollectionResponse{Status: &commonpb.Status{ErrorCode: commonpb.ErrorCode_UnexpectedError, Reason: "can't find collection " + r.CollectionName}}, nil
	}
	schema := &schemapb.CollectionSchema{Name: r.CollectionName}
	for _, name := range []string{fieldRow, fieldKey, fieldHead, fieldBody, fieldText} {
		schema.Fields = append(schema.Fields, &schemapb.FieldSchema{Name: name, DataType: schemapb.DataType_VarChar, IsPrimaryKey: name == fieldRow})
	}
	schema.Fields = append(schema.Fields,
		&schemapb.FieldSchema{Name: fieldDocument, DataType: schemapb.DataType_Int64},
		&schemapb.FieldSchema{Name: fieldScope, DataType: schemapb.DataType_Int64},
		&schemapb.FieldSchema{Name: fieldTags, DataType: schemapb.DataType_Array, ElementType: schemapb.DataType_Int64},
		&schemapb.FieldSchema{Name: fieldOrder, DataType: schemapb.DataType_JSON},
		&schemapb.FieldSchema{Name: fieldVector, DataType: schemapb.DataType_FloatVector, TypeParams: []*commonpb.KeyValuePair{{Key: "dim", Value: "2"}}})
	return &milvuspb.DescribeCollectionResponse{
		Status: fine, CollectionID: 7, Schema: schema, CollectionName: r.CollectionName,
		Properties: []*commonpb.KeyValuePair{{Key: property, Value: `{"format":1,"corpus":"c","name":"g","dim":2}`}},
	}, nil
}

func (f *faulty) Upsert(_ context.Context, r *milvuspb.UpsertRequest) (*milvuspb.MutationResult, error) {
	var keys []string
	for _, d := range r.FieldsData {
		if d.FieldName == fieldRow {
			keys = d.GetScalars().GetStringData().GetData()
		}
	}
	if err := f.upsert(keys); err != nil {
		return nil, err
	}
	ids := &schemapb.IDs{IdField: &schemapb.IDs_StrId{StrId: &schemapb.StringArray{Data: keys}}}
	return &milvuspb.MutationResult{Status: fine, IDs: ids}, nil
}

func (f *faulty) Query(ctx context.Context, r *milvuspb.QueryRequest) (*milvuspb.QueryResults, error) {
	s := fine
	if f.query != nil {
		s = f.query()
	}
	if s == nil { // hang
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if since := f.since.Load(); s == fine && since != nil {
		more := append(slices.Clone(*since), r.GuaranteeTimestamp)
		f.since.Store(&more)
	}
	text := func(name string) *schemapb.FieldData {
		return &schemapb.FieldData{FieldName: name, Type: schemapb.DataType_VarChar, Field: &schemapb.FieldData_Scalars{Scalars: &schemapb.ScalarField{
			Data: &schemapb.ScalarField_StringData{StringData: &schemapb.StringArray{}},
		}}}
	}
	return &milvuspb.QueryResults{Status: s, FieldsData: []*schemapb.FieldData{text(fieldRow), text(fieldKey), text(fieldHead), text(fieldBody)}}, nil
}

// serve starts it and opens a store on it.
func (f *faulty) serve(t *testing.T, timeouts Timeouts) (*Store, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	milvuspb.RegisterMilvusServiceServer(server, f)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	timeouts.Settle = max(timeouts.Settle, time.Nanosecond) // only one test waits for it
	s, err := Open(t.Context(), Config{Address: l.Addr().String(), Corpus: "c", Token: "secret", Timeouts: timeouts})
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q says nothing of %q", err, p)
		}
	}
}

// A server that is not there is an error soon, and says what to look at. (Without a deadline the SDK waits for ever.)
func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	_ = l.Close()
	_, err = Open(t.Context(), Config{Address: dead, Corpus: "c"})
	wantError(t, err, dead, "not reachable", "milvus.address")

	// One that takes connections and says nothing.
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	_, err = Open(t.Context(), Config{Address: mute.Addr().String(), Corpus: "c", Timeouts: Timeouts{Dial: 100 * time.Millisecond}})
	wantError(t, err, mute.Addr().String(), "try again")

	_, err = Open(t.Context(), Config{Address: "no port", Corpus: "c"})
	wantError(t, err, "HOST:PORT")
	for _, corpus := range []string{"", "a/b", strings.Repeat("a", 151)} {
		if _, err = Open(t.Context(), Config{Address: dead, Corpus: corpus}); !errors.Is(err, vectordb.ErrInvalid) {
			t.Errorf("corpus %q: %v", corpus, err)
		}
	}
	_, err = Open(t.Context(), Config{Address: dead, Corpus: "c", TLS: TLS{Enable: true, CAFile: "no such file"}})
	wantError(t, err, "milvus.ca_file")
}

func TestRefusedLogin(t *testing.T) {
	f := &faulty{login: status.Error(codes.Unauthenticated, "auth check failure, please check username and password are correct")}
	_, err := f.serve(t, Timeouts{})
	wantError(t, err, "refuses the login", "milvus.token", "auth check failure")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows the token: %v", err)
	}
}

// What is too large is halved, and no request is sent twice. (The SDK alone would send it six times more.)
func TestTooLargeIsHalved(t *testing.T) {
	var mu sync.Mutex
	sent := map[string]int{}
	var accepted []string
	f := &faulty{upsert: func(keys []string) error {
		mu.Lock()
		defer mu.Unlock()
		sent[strings.Join(keys, " ")]++
		if len(keys) > 3 {
			return status.Error(codes.ResourceExhausted, "grpc: received message larger than max")
		}
		accepted = append(accepted, keys...)
		return nil
	}}
	s, err := f.serve(t, Timeouts{})
	if err != nil {
		t.Fatal(err)
	}
	r := vectordb.Revision{Key: "a", Version: 1}
	for i := range 20 {
		r.Entries = append(r.Entries, vectordb.Entry{Vector: []float32{float32(i), 1}})
	}
	if err := s.Apply(t.Context(), "g", vectordb.Write{Revisions: []vectordb.Revision{r}}); err != nil {
		t.Fatal(err)
	}
	for keys, n := range sent {
		if n > 1 {
			t.Errorf("%d requests of %s", n, keys)
		}
	}
	if len(accepted) != 20 || !strings.HasSuffix(accepted[19], "/0") || !slices.IsSortedFunc(accepted, func(a, b string) int { return len(b) - len(a) }) {
		t.Errorf("accepted %d rows, the last is %s: the head must come last", len(accepted), accepted[len(accepted)-1])
	}
	// A single row that is too large can't be cut.
	f.upsert = func([]string) error {
		return status.Error(codes.ResourceExhausted, "grpc: received message larger than max")
	}
	r.Version = 2
	if err := s.Apply(t.Context(), "g", vectordb.Write{Revisions: []vectordb.Revision{r}}); !errors.Is(err, errTooLarge) {
		t.Errorf("error %v", err)
	}
}

// A server that has no room left is not asked again at once, nor with less.
func TestNoRoomIsNoSize(t *testing.T) {
	sent := 0
	f := &faulty{upsert: func([]string) error {
		sent++
		return status.Error(codes.ResourceExhausted, "quota exceeded[reason=memory quota exceeded, please allocate more resources]")
	}}
	s, err := f.serve(t, Timeouts{})
	if err != nil {
		t.Fatal(err)
	}
	r := vectordb.Revision{Key: "a", Version: 1, Entries: []vectordb.Entry{{Vector: []float32{0, 1}}, {Vector: []float32{1, 0}}}}
	err = s.Apply(t.Context(), "g", vectordb.Write{Revisions: []vectordb.Revision{r}})
	wantError(t, err, "quota exceeded", "allocate more")
	if errors.Is(err, errTooLarge) || errors.Is(err, vectordb.ErrInvalid) || sent != 1 {
		t.Errorf("%d requests were sent, and then: %v", sent, err)
	}
}

// A collection that is not in the server's memory is loaded once, however many ask, and they go on when it is.
func TestNotLoaded(t *testing.T) {
	var left atomic.Int64
	f := &faulty{}
	f.query = func() *commonpb.Status {
		if left.Add(-1) >= 0 {
			return &commonpb.Status{ErrorCode: commonpb.ErrorCode_UnexpectedError, Reason: "failed to query: collection not loaded[collection=7]"}
		}
		return fine
	}
	s, err := f.serve(t, Timeouts{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.generation(t.Context(), "g"); err != nil {
		t.Fatal(err)
	}
	before := f.loads.Load()
	left.Store(8)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Current(t.Context(), "g", []string{"a"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := f.loads.Load() - before; n < 1 || n > 4 {
		t.Errorf("8 calls had it loaded %d times", n)
	}
	// For ever is too long.
	left.Store(1 << 40)
	s.config.Timeouts.Load = 50 * time.Millisecond
	_, err = s.Current(t.Context(), "g", []string{"a"})
	wantError(t, err, "still not ready", "collection not loaded")
}

// After a server was not ready, reads ask for its newest state for a while: it may know of removals before it knows of what was written before them.
func TestReadsAfterAServerWasNotReady(t *testing.T) {
	trouble := fine
	f := &faulty{query: func() *commonpb.Status {
		defer func() { trouble = fine }()
		return trouble
	}}
	s, err := f.serve(t, Timeouts{})
	if err != nil {
		t.Fatal(err)
	}
	newest := func() bool {
		t.Helper()
		f.since.Store(&[]uint64{})
		if _, err := s.Current(t.Context(), "g", []string{"a"}); err != nil {
			t.Fatal(err)
		}
		return (*f.since.Load())[0] == client.StrongTimestamp
	}
	if newest() {
		t.Error("an ordinary read waits for the newest state")
	}
	trouble = &commonpb.Status{ErrorCode: commonpb.ErrorCode_UnexpectedError, Reason: "failed to query: collection not loaded[collection=7]"}
	for range 2 {
		if !newest() {
			t.Error("a read after the collection was not loaded takes what there is")
		}
	}
	g, err := s.generation(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	g.shaken.set(time.Now().Add(-shakenFor))
	if newest() {
		t.Error("a read a while later waits for the newest state")
	}
}

// What a server says right after it has loaded a collection is not believed: it is asked again.
func TestReadsWaitUntilACollectionHasSettled(t *testing.T) {
	var mu sync.Mutex
	var asked []time.Time
	f := &faulty{query: func() *commonpb.Status {
		mu.Lock()
		defer mu.Unlock()
		if asked = append(asked, time.Now()); len(asked) == 1 {
			return &commonpb.Status{ErrorCode: commonpb.ErrorCode_UnexpectedError, Reason: "failed to query: collection not loaded[collection=7]"}
		}
		return fine
	}}
	const settle = time.Second
	s, err := f.serve(t, Timeouts{Settle: settle})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Current(t.Context(), "g", []string{"a"}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if n := len(asked); n < 3 || asked[n-1].Sub(asked[0]) < settle {
		t.Errorf("it was asked %d times, the last one %s after it had not loaded the collection", n, asked[n-1].Sub(asked[0]))
	}
	asked = nil
	mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := s.Current(ctx, "g", []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller that can't wait gets %v", err)
	}
}

// Every call has a deadline, and the caller's own is told apart from the server's silence.
// One that loads the collection anew in the middle of reading all of it may say too early that there is no more: what is read then is not taken for all.
func TestAReadOfEverythingAcrossALoad(t *testing.T) {
	for _, unloaded := range []int32{0, 2} {
		var asked atomic.Int32
		f := &faulty{query: func() *commonpb.Status {
			if asked.Add(1) == unloaded {
				return &commonpb.Status{ErrorCode: commonpb.ErrorCode_UnexpectedError, Reason: "failed to query: collection not loaded[collection=7]"}
			}
			return fine
		}}
		s, err := f.serve(t, Timeouts{Settle: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		g, err := s.generation(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		asked.Store(0) // the first one reads the first page
		err = s.iterate(t.Context(), g, fieldRow+` > ""`, []string{fieldRow}, func(client.ResultSet) error { return nil })
		if unloaded == 0 {
			if err != nil {
				t.Errorf("undisturbed: %v", err)
			}
			continue
		}
		wantError(t, err, "just loaded", "try again")
	}
}

func TestSilence(t *testing.T) {
	f := &faulty{query: func() *commonpb.Status { return nil }}
	s, err := f.serve(t, Timeouts{Read: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Current(t.Context(), "g", []string{"a"})
	wantError(t, err, "did not answer in time", "try again", "generation g")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err = s.Current(ctx, "g", []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// A collection that is gone, because another process dropped it, is no generation.
func TestDroppedElsewhere(t *testing.T) {
	f := &faulty{query: func() *commonpb.Status {
		return &commonpb.Status{ErrorCode: commonpb.ErrorCode_UnexpectedError, Reason: "can't find collection collection not found[database=default][collection=liverag_c_g]"}
	}}
	s, err := f.serve(t, Timeouts{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Current(t.Context(), "g", []string{"a"}); !errors.Is(err, vectordb.ErrNoGeneration) {
			t.Errorf("error %v", err)
		}
	}
}

func TestKnownServers(t *testing.T) {
	for version, want := range map[string]struct{ known, sparse, delayed bool }{
		"v2.3.5-lite":       {true, false, true},
		"milvus_lite-3.2.2": {true, true, false},
		"2.4.13":            {true, true, true},
		"v2.6.2":            {true, true, true},
		"3.0.0":             {true, true, true},
		"a cloud's own":     {},
	} {
		s, known := knownServer(version)
		if known != want.known || known && (s.Sparse != want.sparse || s.Delayed != want.delayed) {
			t.Errorf("%s: %+v, known: %v", version, s, known)
		}
		if known && (len(s.Missing()) == 0) == (!s.Sparse || s.Delayed) {
			t.Errorf("%s: missing %q", version, s.Missing())
		}
	}
}

func TestCollectionNames(t *testing.T) {
	for corpus, want := range map[string]string{"documents": "liverag_documents_g", "my-docs.v2": "liverag_my_2d_docs_2e_v2_g", "A_b": "liverag_A_b_g"} {
		s := &Store{config: Config{Corpus: corpus}}
		if got := s.collectionName("g"); got != want {
			t.Errorf("%s: %s, want %s", corpus, got, want)
		}
	}
}
