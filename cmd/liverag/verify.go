package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/liverag/liverag/internal/spell"
)

func verifyVerb() verb {
	return verb{
		name: "verify", group: groupCare,
		summary: "Compare an index with the log, while both go on changing",
		about: `Folds the log into what the index should hold, and compares: documents that are missing, stale (of another version), orphaned (the log has deleted them), mixed (text, fields or chunks of another version), and vectors that the model can't have made. All of them must be 0, and the exit code is 1 if one is not. Documents that are served at an older version, or not at all, because their newest change is a dead letter are counted, and are not wrong.

It is safe on a live system: what changes meanwhile is looked at again, so that nothing right is reported. --rate bounds what it reads. The server does the work; stopping this command stops it.

--repair applies again what the log says, and deletes what it does not hold.

--document ID prints a receipt instead: what there is of one document in the log and in every generation, once they have caught up. The exit code is 1 unless it is gone from all of them. --purge removes what is left beside of one that is deleted: cached vectors that no other document uses, what the embedded store's files still hold of it, and, with the next start, its old records from an embedded log. Records of it in the dead-letter topic stay until the topic's retention takes them; the receipt counts them.`,
		examples: []example{
			{"is the index what the log says?", "liverag verify"},
			{"gently, a tenth of the documents, for a cron job", "liverag verify --rate 200 --sample 0.1 --json"},
			{"put right whatever is wrong in another generation", "liverag verify --generation trial --repair"},
			{"prove that a document is gone, and leave no vector of it", "liverag rm kb/leaver.md && liverag verify --document kb/leaver.md --purge"},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			var v verification
			fs.StringVar(&v.Generation, "generation", "live", "the `NAME` of a generation, or an alias")
			fs.IntVar(&v.Rate, "rate", 2000, "how many documents and changes are read in a second at most; 0 for no limit")
			fs.Float64Var(&v.Sample, "sample", 1, "the `SHARE` of the documents that is compared, above 0 and at most 1")
			fs.BoolVar(&v.Repair, "repair", false, "put right what is wrong")
			fs.StringVar(&v.document, "document", "", "print the receipt of the document `ID` instead")
			fs.StringVar(&v.tenant, "tenant", "", "with --document: its `TENANT`")
			fs.BoolVar(&v.purge, "purge", false, "with --document: remove what is left beside of a deleted one")
			return func(ctx context.Context, c *call) error {
				var other []string
				fs.Visit(func(f *flag.Flag) {
					switch f.Name {
					case "generation", "rate", "sample", "repair":
						other = append(other, "--"+f.Name)
					}
				})
				if v.document != "" && len(other) > 0 {
					return &usageError{detail: strings.Join(other, " and ") + " does not go with --document, which looks into every generation"}
				}
				return v.run(ctx, c)
			}
		},
	}
}

// verification is the body of POST /verify.
type verification struct {
	Generation string  `json:"generation"`
	Rate       int     `json:"rate"`
	Sample     float64 `json:"sample"`
	Repair     bool    `json:"repair"`

	document, tenant string
	purge            bool
}

// receipt is the answer of POST /verify/document.
type receipt struct {
	Deleted     bool  `json:"deleted"`
	Version     int64 `json:"version"`
	OldRecords  int   `json:"old_records"`
	DeadLetters int   `json:"dead_letters"`
	Generations []struct {
		Name    string `json:"name"`
		State   string `json:"state"`
		Version int64  `json:"version"`
		Entries int    `json:"entries"`
	} `json:"generations"`
	Purged *struct {
		Vectors int    `json:"vectors"`
		Store   string `json:"store"`
		Log     string `json:"log"`
	} `json:"purged"`
	Gone bool `json:"gone"`
}

// receiptTimeout is for a reading of the whole log and, with --purge, of every generation.
const receiptTimeout = 10 * time.Minute

func (v *verification) printReceipt(ctx context.Context, c *call) error {
	var raw json.RawMessage
	body := map[string]any{"id": v.document, "tenant": v.tenant, "purge": v.purge}
	if err := c.client(ctx).do(ctx, "POST", "/verify/document", body, &raw, options{timeout: receiptTimeout}); err != nil {
		var p *apiError
		if errors.As(err, &p) && p.Code == "document_not_deleted" {
			return withHint(err, "`liverag rm ID` deletes it first")
		}
		return err
	}
	var r receipt
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("the server does not answer like liverag: %w", err)
	}
	if c.JSON {
		c.Out.Printf("%s\n", strings.TrimSpace(string(raw)))
	} else {
		state := "holds it"
		switch {
		case r.Version == 0:
			state = "knows nothing of it"
		case r.Deleted:
			state = "has deleted it"
		}
		c.Out.Printf("%s  the log %s", c.Out.bold(plain(v.document)), state)
		if r.Version > 0 {
			c.Out.Printf(", version %d", r.Version)
		}
		c.Out.Printf("\n")
		for _, g := range r.Generations {
			c.Out.Printf("  %s: %s, %s\n", plain(g.Name), plain(g.State), count(g.Entries, "entry"))
		}
		c.Out.Printf("  %s with content in the log, %s\n", count(r.OldRecords, "old record"), count(r.DeadLetters, "dead letter"))
		if r.Purged != nil {
			c.Out.Printf("  purged: %s; %s; %s\n", count(r.Purged.Vectors, "cached vector"), plain(r.Purged.Store), plain(r.Purged.Log))
		}
	}
	if !r.Gone {
		return withHint(fmt.Errorf("%s is not gone", plain(v.document)), "`liverag rm ID` deletes a document; `liverag verify --repair` removes one that the log has deleted")
	}
	return nil
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
		return &usageError{detail: "verify takes no arguments: --document ID names one"}
	case v.document == "" && (v.purge || v.tenant != ""):
		return &usageError{detail: "--purge and --tenant go with --document"}
	case v.document != "":
		return v.printReceipt(ctx, c)
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
		c.Err.Status("%3.0f %%  %s, %s, %s wrong%s", 100*r.Share, count(r.Changes, "change"), count(r.Documents, "document"), spell.Thousands(r.wrong()), eta)
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
	return spell.Thousands(n) + " documents are"
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
		c.Out.Printf("%s\n", c.Out.dim(fmt.Sprintf("and %s more", spell.Thousands(n))))
	}
	c.Out.Printf("%s: %s compared with %s of the log in %s\n", plain(r.Generation), count(r.Documents, "document"), count(r.Changes, "change"), plain(r.Took))
	c.Out.Printf("  missing %d, stale %d, orphaned %d, mixed %d, bad vectors %d", r.Missing, r.Stale, r.Orphaned, r.Mixed, r.BadVector)
	if v.Repair {
		c.Out.Printf("; repaired %d", r.Repaired)
	}
	c.Out.Printf("\n")
	if r.DeadLettered > 0 {
		c.Out.Printf("  %s served at an older version, or not at all, for a dead letter: `liverag dlq` says why\n", counted(r.DeadLettered))
	}
}
