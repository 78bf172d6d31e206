package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/githistory"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/stream"
)

// What the step about a project's history may take.
const (
	historyWalks   = 300             // commits that are looked at
	historyCommits = 10              // commits that are shown
	historyEmbeds  = 3 * time.Second // of the model's time for the files as they were at first
	historyLasts   = 8 * time.Second // after which no further commit is begun
	historyPrefix  = "liverag/"      // of the documents' ids
)

// ownModule is the first line of this project's go.mod.
const ownModule = "module github.com/liverag/liverag"

// project finds this project's repository, if the program is run within its checkout.
func project(ctx context.Context) (*githistory.Repository, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if line, _, _ := strings.Cut(string(content), "\n"); err == nil && strings.TrimSpace(line) == ownModule {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil, fmt.Errorf("this is no checkout of liverag")
		}
		dir = parent
	}
	r, err := githistory.Open(ctx, dir)
	if err == nil && r.Folder() != "" {
		err = githistory.ErrNotRepository // this copy lies in somebody else's
	}
	return r, err
}

// told selects what a project says about itself.
func told(name string) bool {
	return name == "README.md" || path.Dir(name) == "docs" && path.Ext(name) == ".md"
}

// recent reads the last commits that changed what a project says about itself, each with its changes, oldest first. The first stands for
// everything before the others: it has the files as they were then.
func recent(ctx context.Context, r *githistory.Repository, most int) ([][]githistory.Change, error) {
	head, err := r.Resolve(ctx, "HEAD")
	if err != nil {
		return nil, err
	}
	var commits [][]githistory.Change
	var open []githistory.Change
	for c, err := range r.Recent(ctx, head, historyWalks, githistory.Options{Select: told, MaxBytes: 1 << 20}) {
		switch {
		case err != nil:
			return nil, err
		case c.Kind != githistory.Complete:
			if c.Kind != githistory.LeftOut {
				open = append(open, c)
			}
		case len(open) > 0:
			commits = append(commits, open)
			open = nil
		}
	}
	if len(commits) > most+1 {
		early := commits[:len(commits)-most]
		commits = append([][]githistory.Change{fold(slices.Concat(early...))}, commits[len(early):]...)
	}
	return commits, nil
}

// fold is what many changes amount to: each file as the last of them left it.
func fold(changes []githistory.Change) []githistory.Change {
	last := make(map[string]githistory.Change)
	for _, c := range changes {
		if c.Kind == githistory.Renamed {
			delete(last, c.From)
		}
		if delete(last, c.Path); c.Kind != githistory.Removed {
			c.Kind = githistory.Added
			last[c.Path] = c
		}
	}
	var out []githistory.Change
	for _, c := range changes {
		if l, ok := last[c.Path]; ok {
			out = append(out, l)
			delete(last, c.Path)
		}
	}
	return out
}

// affordable leaves those files out that would take the model too long, the largest first.
func affordable(commits [][]githistory.Change, bytes int) [][]githistory.Change {
	size := make(map[string]int)
	for _, c := range slices.Concat(commits...) {
		size[c.Path] = max(size[c.Path], len(c.Content))
	}
	names := make([]string, 0, len(size))
	for name := range size {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(size[a], size[b]), strings.Compare(a, b)) })
	keep := make(map[string]bool)
	for _, name := range names {
		if bytes -= size[name]; bytes >= 0 {
			keep[name] = true
		}
	}
	var out [][]githistory.Change
	for _, changes := range commits {
		var kept []githistory.Change
		for _, c := range changes {
			if c.Kind == githistory.Renamed && keep[c.From] && !keep[c.Path] {
				c.Kind, c.Path, c.Content = githistory.Removed, c.From, nil
			}
			if keep[c.Path] {
				kept = append(kept, c)
			}
		}
		if len(kept) > 0 {
			out = append(out, kept)
		}
	}
	return out
}

// changesOf is a commit as changes of documents, with the commit's time as when it happened.
func changesOf(commit []githistory.Change) []stream.Change {
	var out []stream.Change
	remove := func(name string) {
		out = append(out, stream.Change{Kind: stream.Delete, ID: historyPrefix + name, Backfill: true})
	}
	for _, c := range commit {
		if c.Kind == githistory.Removed {
			remove(c.Path)
			continue
		}
		if c.Kind == githistory.Renamed && told(c.From) {
			remove(c.From)
		}
		text := string(c.Content)
		out = append(out, stream.Change{Kind: stream.Upsert, ID: historyPrefix + c.Path, Backfill: true, Document: &stream.Document{
			Text: text, ContentType: stream.TextMarkdown, Title: titleOf(stream.TextMarkdown, text), UpdatedAt: c.Commit.Time,
			Metadata: map[string]any{"kind": "guide", "commit": c.Commit.Hash},
		}})
	}
	return out
}

// history shows what becomes of a project's documentation, commit by commit: this one's.
func (t *tour) history(ctx context.Context) error {
	t.step(4, "A project's history as a stream: this repository's README and docs, commit by commit")
	r, err := project(ctx)
	var commits [][]githistory.Change
	if err == nil {
		commits, err = recent(ctx, r, historyCommits)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		t.out.Printf("  Left out: %v. `liverag import --git DIR` does it with any repository.\n", err)
		return nil
	}
	if t.live().Recipe.Embedder.Model == local.MiniLMName {
		commits = affordable(commits, int(t.embedding*historyEmbeds.Seconds()))
	}
	if len(commits) == 0 {
		t.out.Printf("  Left out: there is none.\n")
		return nil
	}
	begun, start := time.Now(), t.live().Progress
	var afterFirst indexer.Progress
	files := make(map[string]bool)
	changed, done := 0, 0
	for i, commit := range commits {
		if time.Since(begun) > historyLasts {
			break
		}
		changes := changesOf(commit)
		receipt, err := t.system.log.Append(ctx, changes...)
		if err != nil {
			return err
		}
		// One after the other: of versions that wait together only the newest would be embedded.
		if err := t.system.indexer.WaitApplied(ctx, indexer.Live, receipt.Positions); err != nil {
			return err
		}
		for _, c := range changes {
			files[c.ID] = true
		}
		if done++; i == 0 {
			afterFirst = t.live().Progress
			t.out.Printf("  %s as of %s: %s embedded\n", count(len(files), "file"), commit[len(commit)-1].Commit.Time.Format(time.DateOnly), count(afterFirst.ChunksEmbedded-start.ChunksEmbedded, "chunk"))
			continue
		}
		changed += len(changes)
	}
	end := t.live().Progress
	if done > 1 {
		embedded, reused := end.ChunksEmbedded-afterFirst.ChunksEmbedded, end.ChunksReused-afterFirst.ChunksReused
		t.out.Printf("  then %s in %s: %s embedded, %s were there already\n", count(changed, "change"), count(done-1, "commit"), count(embedded, "chunk"), spell.Thousands(reused))
	}
	if left := len(commits) - done; left > 0 {
		t.out.Printf("  %s left out, for this processor is slow\n", count(left, "newer commit"))
	}
	t.out.Printf("  %s\n", t.out.dim("in "+short(time.Since(begun))))
	return t.ask(ctx, "what happens to a change when the process crashes", "")
}
