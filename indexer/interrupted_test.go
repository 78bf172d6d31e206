package indexer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
	"github.com/liverag/liverag/vectordb/flat"
)

// interruption counts the steps that change which generations there are, in the control topic and in the store, and interferes with one of them.
type interruption struct {
	mu    sync.Mutex
	how   string // one of interferences; empty while steps are not counted
	at    int
	n     int
	dead  chan struct{} // closed by a kill: nothing the process does counts from then on
	leave func()        // takes what a kill leaves
}

const (
	fails        = "fails"
	killedBefore = "killed before"
	killedAfter  = "killed after"
)

var errInterrupted = errors.New("interrupted")

func (i *interruption) killed() bool {
	select {
	case <-i.dead:
		return true
	default:
		return false
	}
}

func (i *interruption) step(do func() error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.killed() {
		return errInterrupted
	}
	if i.how == "" {
		return do()
	}
	i.n++
	switch {
	case i.n != i.at:
		return do()
	case i.how == killedAfter:
		_ = do()
		fallthrough
	case i.how == killedBefore:
		if i.leave != nil {
			i.leave()
		}
		close(i.dead)
	}
	return errInterrupted
}

// begin counts from now on; end stops it and tells whether the step came.
func (i *interruption) begin(how string, at int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.how, i.at, i.n = how, at, 0
}

func (i *interruption) end() (came bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	came = i.n >= i.at
	i.how = ""
	return came
}

type interruptedStore struct {
	vectordb.Store
	*interruption
}

func (s interruptedStore) Create(ctx context.Context, g vectordb.Generation) error {
	return s.step(func() error { return s.Store.Create(ctx, g) })
}

func (s interruptedStore) Drop(ctx context.Context, name string) error {
	return s.step(func() error { return s.Store.Drop(ctx, name) })
}

func (s interruptedStore) Apply(ctx context.Context, name string, w vectordb.Write) error {
	if s.killed() {
		return errInterrupted
	}
	return s.Store.Apply(ctx, name, w)
}

type interruptedRegister struct {
	stream.Register
	*interruption
}

func (r interruptedRegister) Load(ctx context.Context) (sequence int64, value []byte, err error) {
	err = r.step(func() error {
		sequence, value, err = r.Register.Load(ctx)
		return err
	})
	return sequence, value, err
}

func (r interruptedRegister) CompareAndSet(ctx context.Context, sequence int64, value []byte) error {
	return r.step(func() error { return r.Register.CompareAndSet(ctx, sequence, value) })
}

// process is an indexer that can be interrupted, on a log and a store that outlive it.
type process struct {
	*bed
	*interruption
	indexer *Indexer
	store   vectordb.Store
	stop    func()
}

// begin runs one, and waits until it answers.
func (b *bed) begin(store vectordb.Store) *process {
	b.t.Helper()
	p := &process{bed: b, interruption: &interruption{dead: make(chan struct{})}, store: store}
	c := b.config(Config{Store: interruptedStore{store, p.interruption}})
	c.Register = interruptedRegister{c.Register, p.interruption}
	p.indexer = New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.indexer.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !p.killed() {
			b.t.Errorf("indexer: %v", err)
		}
	})
	b.t.Cleanup(p.stop)
	b.eventually("ready", func() bool { return p.indexer.Ready() == nil })
	return p
}

// oneLive holds that one generation is live, works and answers, that it is one of those, and that control topic and store name the same generations.
func (p *process) oneLive(of ...string) (live string) {
	p.t.Helper()
	for _, g := range p.indexer.List() {
		if slices.Contains(g.Alias, Live) {
			if live != "" {
				p.t.Errorf("both %s and %s are live", live, g.Name)
			}
			live = g.Name
		}
	}
	if !slices.Contains(of, live) {
		p.t.Errorf("live is %q, may be one of %q", live, of)
	}
	if _, _, err := p.indexer.Lookup(Live); err != nil {
		p.t.Errorf("the live generation can't be used: %v", err)
	}
	if err := p.indexer.WaitApplied(p.ctx(), Live, p.bed.append(upsert("probe", fmt.Sprintf("probe%d", p.appended)))); err != nil {
		p.t.Error(err)
	}
	hits, err := p.store.Search(p.ctx(), live, vectordb.Query{Text: fmt.Sprintf("probe%d", p.appended-1), Depth: 3})
	if err != nil || len(hits) != 1 || hits[0].Key != "probe" {
		p.t.Errorf("%s answers %+v, %v", live, hits, err)
	}
	_, value, err := p.log.Control().Load(p.ctx())
	if err != nil {
		p.t.Fatal(err)
	}
	control, err := decodeControl(value)
	if err != nil || control.Live != live {
		p.t.Errorf("the control topic says that %q is live, %v", control.Live, err)
	}
	p.eventually("the same in the control topic and in the store", func() bool {
		_, value, err := p.log.Control().Load(p.ctx())
		if err != nil {
			p.t.Fatal(err)
		}
		control, _ := decodeControl(value)
		stored, err := p.store.List(p.ctx())
		if err != nil {
			p.t.Fatal(err)
		}
		for _, spec := range control.Generations {
			if spec.Desired == drop || !slices.ContainsFunc(stored, func(g vectordb.Generation) bool { return g.Name == spec.Name }) {
				return false
			}
		}
		return len(stored) == len(control.Generations)
	})
	return live
}

// canon makes it as it was: "old" is live, "new" is ready, and old was promoted after new.
func (p *process) canon() {
	p.t.Helper()
	for _, name := range []string{"old", "new"} {
		if p.indexer.lookup(name) == nil {
			if _, err := p.indexer.Create(p.ctx(), name, vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Recursive, Tokens: 20 + 10*len(name) + int(name[0])}}); err != nil {
				p.t.Fatal(err)
			}
		}
		p.eventually(name+" ready", func() bool { i, err := p.indexer.Info(name); return err == nil && i.State == StateReady })
	}
	for _, name := range []string{"new", "old"} {
		if _, err := p.indexer.Promote(p.ctx(), name); err != nil {
			p.t.Fatal(err)
		}
	}
	for _, g := range p.indexer.List() {
		if g.Name != "old" && g.Name != "new" {
			if err := p.indexer.Drop(p.ctx(), g.Name); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// TestInterruptedAnywhereOneGenerationIsLive interrupts promote, rollback, drop and create at each of their steps in turn: the step fails, or the process is killed before it or
// right after it. One generation is live all the time, the one before or the one after; what began is finished or gone; and the same can be asked for again.
func TestInterruptedAnywhereOneGenerationIsLive(t *testing.T) {
	recipe := vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Token, Tokens: 33}}
	operations := []struct {
		name string
		do   func(ctx context.Context, x *Indexer) error
		then []string // what may be live afterwards; the last one is, once it is done
		// least is how many steps it takes at least.
		least int
	}{
		{"promote", func(ctx context.Context, x *Indexer) error { _, err := x.Promote(ctx, "new"); return err }, []string{"old", "new"}, 2},
		{"rollback", func(ctx context.Context, x *Indexer) error { _, err := x.Rollback(ctx); return err }, []string{"old", "new"}, 2},
		{"drop", func(ctx context.Context, x *Indexer) error { return x.Drop(ctx, "new") }, []string{"old"}, 6},
		{"create", func(ctx context.Context, x *Indexer) error { _, err := x.Create(ctx, "third", recipe); return err }, []string{"old"}, 3},
	}
	for _, kind := range []string{"memory", "flat"} {
		for _, op := range operations {
			t.Run(kind+"/"+op.name, func(t *testing.T) {
				t.Parallel()
				b := newBed(t)
				b.stop() // its own indexer is not to be in the way
				var store vectordb.Store = b.store.Memory
				dir := t.TempDir()
				open := func() {
					t.Helper()
					s, err := flat.Open(dir, flat.Options{NoSync: true})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { s.Close() })
					store = s
				}
				if kind == "flat" {
					open()
				}
				p := b.begin(store)
				steps := 0
				for _, how := range []string{fails, killedBefore, killedAfter} {
					for at := 1; ; at++ {
						p.canon()
						p.oneLive("old")
						if kind == "flat" {
							p.leave = func() {
								left := filepath.Join(t.TempDir(), "left")
								if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
									t.Error(err)
								}
								dir = left
							}
						}
						p.interruption.begin(how, at)
						ctx, cancel := context.WithCancel(b.ctx())
						dead := p.dead
						go func() {
							select {
							case <-dead:
								cancel()
							case <-ctx.Done():
							}
						}()
						err := op.do(ctx, p.indexer)
						cancel()
						came := p.end()
						if t.Failed() {
							return
						}
						steps = max(steps, at-1)
						if p.killed() {
							p.stop()
							if kind == "flat" {
								open()
							}
							p = b.begin(store)
						}
						live := p.oneLive(op.then...)
						if err == nil && !came && live != op.then[len(op.then)-1] {
							t.Errorf("%s says that it is done, and %s is live", op.name, live)
						}
						if t.Failed() {
							t.Fatalf("%s, step %d %s: %v", op.name, at, how, err)
						}
						if !came {
							break
						}
					}
				}
				if steps < op.least {
					t.Errorf("%s took only %d steps", op.name, steps)
				}
				t.Logf("%s was interrupted at each of its %d steps", op.name, steps)
			})
		}
	}
}
