package embedder_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
)

// TestALoneSickInputStopsNobody: an input that an endpoint always fails for, and that is all there is to do, keeps nobody from asking; that the endpoint does nothing but fail is told all the same.
func TestALoneSickInputStopsNobody(t *testing.T) {
	for name, standby := range map[string]bool{"alone": false, "with a standby": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, other := newPlace(10*time.Millisecond), newPlace(10*time.Millisecond)
				p.poison, other.poison = "sick", "sick"
				cfg := embedder.BatchConfig{Patience: 24 * time.Hour}
				if standby {
					cfg.Failover = []embedder.Endpoint{{Name: "second", Model: other}}
				}
				b := embedder.Batch(p, cfg)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() {
					_, err := b.Embed(ctx, embedder.Index, []string{"sick"})
					ended <- err
				}()
				told := 0
				for i := range 20 {
					time.Sleep(5 * time.Minute) // of the one input alone
					all := b.Providers()
					if at := all[len(all)-1]; at.Away() && strings.Contains(at.Detail, "503") && at.NextTry.After(time.Now()) {
						told++
					}
					for role := range 2 {
						began, text := time.Now(), fmt.Sprint("other ", i, role)
						if vectors, err := b.Embed(t.Context(), embedder.Role(role), []string{text}); err != nil || len(vectors) != 1 {
							t.Errorf("%v after %v: %v", embedder.Role(role), time.Since(began), err)
						}
						if took := time.Since(began); took > 100*time.Millisecond {
							t.Errorf("a %v took %v", embedder.Role(role), took)
						}
					}
					if at := b.Providers()[0]; !standby && at.State != embedder.Ready {
						t.Errorf("it has just answered: %+v", at)
					}
				}
				if told < 15 {
					t.Errorf("%d of 20 times it was told that it only fails", told)
				}
				if n := len(p.since(time.Time{})); n > 1000 {
					t.Errorf("%d requests in a hundred minutes", n)
				}
				cancel()
				<-ended
			})
		})
	}
}

// TestAnOutageWithOneWaiting: an endpoint that is down is told as down when one document is all that waits, and left alone as soon as anything else has failed too.
func TestAnOutageWithOneWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(10 * time.Millisecond)
		p.fail(unavailable)
		b := embedder.Batch(p, embedder.BatchConfig{Patience: time.Hour})
		ended := make(chan error, 1)
		go func() {
			_, err := b.Embed(t.Context(), embedder.Index, []string{"waits"})
			ended <- err
		}()
		began := time.Now()
		time.Sleep(30 * time.Second)
		at := b.Providers()[0]
		if at.State != embedder.Down || at.Since.Sub(began) > 20*time.Second || !strings.Contains(at.Trouble(), "is down: ") {
			t.Errorf("after %v: %+v", time.Since(began), at)
		}
		if _, err := b.Embed(t.Context(), embedder.Query, []string{"who?"}); err == nil {
			t.Error("it is down, and answers")
		}
		asked := time.Now()
		if _, err := b.Embed(t.Context(), embedder.Query, []string{"who else?"}); err == nil || time.Since(asked) > 0 || !strings.Contains(err.Error(), "tried again at") {
			t.Errorf("once a question has failed too: %v after %v", err, time.Since(asked))
		}
		if again := b.Providers()[0]; again.State != embedder.Down || !again.Since.Equal(at.Since) {
			t.Errorf("%+v, and then %+v", at, again)
		}
		p.fail(nil)
		back := time.Now()
		if err := <-ended; err != nil || time.Since(back) > 90*time.Second {
			t.Errorf("%v, %v after it was back", err, time.Since(back))
		}
		if at := b.Providers()[0]; at.State != embedder.Ready || at.Detail != "" {
			t.Errorf("%+v", at)
		}
	})
}
