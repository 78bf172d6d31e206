package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"
)

func verifyVerb() verb {
	return verb{
		name: "verify", group: groupCare,
		summary: "Compare an index with the log, while both go on changing",
		about: `Folds the log into what the index should hold, and compares: documents that are missing, stale (of another version), orphaned (the log has deleted them), mixed (text or chunks of another version), and vectors that the model can't have made. All of them must be 0, and the exit code is 1 if one is not. Documents that are served at an older version because their newest change is a dead letter are counted, and are not wrong.

It is safe on a live system: what changes meanwhile is looked at again, so that nothing right is reported. --rate bounds what it reads. The server does the work; stopping this command stops it.

--repair applies again what the log says, and deletes what it does not hold.`,
		examples: []example{
			{"is the index what the log says?", "liverag verify"},
			{"gently, a tenth of the documents, for a cron job", "liverag verify --rate 200 --sample 0.1 --json"},
			{"put right whatever is wrong in another generation", "liverag verify --generation trial --repair"},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			var v verification
			fs.StringVar(&v.Generation, "generation", "live", "the `NAME` of a generation, or an alias")
			fs.IntVar(&v.Rate, "rate", 2000, "how many documents and changes are read in a second at most; 0 for no limit")
			fs.Float64Var(&v.Sample, "sample", 1, "the `SHARE` of the documents that is compared, above 0 and at most 1")
			fs.BoolVar(&v.Repair, "repair", false, "put right what is wrong")
			return v.run
		},
	}
}

// verification is the body of POST /verify.
type verification struct {
	Generation string  `json:"generation"`
	Rate       int     `json:"rate"`
	Sample     float64 `json:"sample"`
	Repair     bool    `json:"repair"`
}

// verified is the answer of GET /verify.
type verified struct {
	State        string  `json:"state"`
	Detail       string  `json:"detail"`
	Generation   string  `json:"generation"`
	Share        float64 `json:"share"`
	Changes      int64   `json:"changes"`
	Documents    int64   `json:"documents"`
	Missing      int64   `json:"missing"`
	Stale        int64   `json:"stale"`
	Orphaned     int64   `json:"orphaned"`
	Mixed        int64   `json:"mixed"`
	BadVector    int64   `json:"bad_vector"`
	DeadLettered int64   `json:"dead_lettered"`
	Repaired     int64   `json:"repaired"`
	Right        bool    `json:"right"`
	Took         string  `json:"took"`
	Findings     []struct {
		ID       string `json:"id"`
		Tenant   string `json:"tenant"`
		Kind     string `json:"kind"`
		Detail   string `json:"detail"`
		Repaired *bool  `json:"repaired"`
	} `json:"findings"`
}

func (v *verified) wrong() int64 { return v.Missing + v.Stale + v.Orphaned + v.Mixed + v.BadVector }

func (v *verification) run(ctx context.Context, c *call) error {
	switch {
	case len(c.Args) > 0:
		return &usageError{detail: "verify takes no arguments"}
	case v.Rate < 0:
		return &usageError{detail: "--rate is not negative"}
	case !(v.Sample > 0 && v.Sample <= 1):
		return &usageError{detail: "--sample is above 0 and at most 1"}
	}
	cl := c.client(ctx)
	var raw json.RawMessage
	if err := cl.do(ctx, "POST", "/verify", v, &raw, options{}); err != nil {
		var p *apiError
		switch {
		case errors.As(err, &p) && p.Code == "verify_running":
			return withHint(err, "one runs at a time; wait for it to end")
		case errors.As(err, &p) && p.Code == "generation_unknown":
			return withGenerationHint(err)
		}
		return err
	}
	begin := time.Now()
	var r verified
	for {
		r = verified{}
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("the server does not answer like liverag: %w", err)
		}
		if r.State != "running" {
			break
		}
		eta := ""
		if since := time.Since(begin); r.Share > .02 && since > 2*time.Second {
			eta = ", " + short(time.Duration(float64(since)*(1-r.Share)/r.Share)) + " to go"
		}
		c.Err.Status("%3.0f %%  %s, %s, %s wrong%s", 100*r.Share, count(r.Changes, "change"), count(r.Documents, "document"), thousands(r.wrong()), eta)
		err := sleep(ctx, pollEvery)
		if err == nil {
			err = cl.do(ctx, "GET", "/verify", nil, &raw, options{})
		}
		if errors.Is(err, context.Canceled) {
			c.Err.clearStatus()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_ = cl.do(stop, "DELETE", "/verify", nil, nil, options{})
		}
		if err != nil {
			return err
		}
	}
	c.Err.clearStatus()
	if c.JSON {
		c.Out.Printf("%s\n", strings.TrimSpace(string(raw)))
	}
	switch r.State {
	case "done":
	case "stopped":
		return errors.New("somebody stopped the verification")
	default:
		return fmt.Errorf("the verification failed: %s", plain(r.Detail))
	}
	if !c.JSON {
		v.print(c, &r)
	}
	if !r.Right {
		left := r.wrong() - r.Repaired
		if v.Repair {
			return withHint(fmt.Errorf("%s could not be repaired", count(left, "document")), "`liverag replay` builds the index anew from the log, beside this one")
		}
		return withHint(fmt.Errorf("%s in %s not as the log says", counted(left), plain(r.Generation)), "`liverag verify --repair` puts them right")
	}
	return nil
}

// counted is a number of documents with its verb.
func counted(n int64) string {
	if n == 1 {
		return "1 document is"
	}
	return thousands(n) + " documents are"
}

func (v *verification) print(c *call, r *verified) {
	for _, f := range r.Findings {
		id := f.ID
		if f.Tenant != "" {
			id += " of " + f.Tenant
		}
		state := ""
		if f.Repaired != nil && *f.Repaired {
			state = "  " + c.Out.good("repaired")
		}
		c.Out.Printf("%s  %s  %s%s\n", c.Out.bad(plain(f.Kind)), plain(id), plain(f.Detail), state)
	}
	if n := r.wrong() - int64(len(r.Findings)); n > 0 {
		c.Out.Printf("%s\n", c.Out.dim(fmt.Sprintf("and %s more", thousands(n))))
	}
	c.Out.Printf("%s: %s compared with %s of the log in %s\n", plain(r.Generation), count(r.Documents, "document"), count(r.Changes, "change"), plain(r.Took))
	c.Out.Printf("  missing %d, stale %d, orphaned %d, mixed %d, bad vectors %d", r.Missing, r.Stale, r.Orphaned, r.Mixed, r.BadVector)
	if v.Repair {
		c.Out.Printf("; repaired %d", r.Repaired)
	}
	c.Out.Printf("\n")
	if r.DeadLettered > 0 {
		c.Out.Printf("  %s served at an older version: `liverag dlq` says why\n", counted(r.DeadLettered))
	}
}
