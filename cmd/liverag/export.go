package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/parquet-go/parquet-go"
)

func exportVerb() verb {
	return verb{
		name: "export", group: groupGenerations,
		summary: "Write an index's chunks, vectors and lineage as a Parquet file, for notebooks",
		about: `Writes a row a chunk: its id, document, text and span, its vector as a list of floats, the document's title, URL, metadata (as JSON) and times, and where it comes from: the document's version and its offset in the log. The file's own metadata hold the generation, its recipe and the log. Rows are in the order of documents' ids, then of the text.

Every document is whole and at one version; the index goes on changing meanwhile. The file appears under its name when it is complete.`,
		examples: []example{
			{"what answers now", "liverag export --out chunks.parquet"},
			{"another generation", "liverag export --generation trial --out trial.parquet"},
			{"look at it from Python", `liverag export --out chunks.parquet && python3 -c 'import pandas; print(pandas.read_parquet("chunks.parquet"))'`},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			generation := fs.String("generation", "live", "the `NAME` of a generation, or an alias")
			out := fs.String("out", "", "the `FILE` to write (default: the generation's name with .parquet)")
			force := fs.Bool("force", false, "replace the file if it is there")
			return func(ctx context.Context, c *call) error { return runExport(ctx, c, *generation, *out, *force) }
		},
	}
}

// exportRow is a row of the file.
type exportRow struct {
	ID           string    `parquet:"id"`
	Document     string    `parquet:"document,dict"`
	Version      int64     `parquet:"version"`
	Offset       int64     `parquet:"offset"`
	Start        int64     `parquet:"start"`
	End          int64     `parquet:"end"`
	Tokens       int32     `parquet:"tokens"`
	Text         string    `parquet:"text"`
	Vector       []float32 `parquet:"vector,list"`
	Title        string    `parquet:"title,dict"`
	URL          string    `parquet:"url,dict"`
	ContentType  string    `parquet:"content_type,dict"`
	Metadata     string    `parquet:"metadata,dict"`
	UpdatedAt    time.Time `parquet:"updated_at,timestamp(microsecond)"`
	LoggedAt     time.Time `parquet:"logged_at,timestamp(microsecond)"`
	SearchableAt time.Time `parquet:"searchable_at,timestamp(microsecond)"`
}

// exportLine is what the server sends.
type exportLine struct {
	Generation *struct {
		Name      string          `json:"name"`
		Recipe    json.RawMessage `json:"recipe"`
		Dim       int             `json:"dim"`
		Origin    string          `json:"origin"`
		AsOf      time.Time       `json:"as_of"`
		Created   time.Time       `json:"created"`
		Documents int64           `json:"documents"`
	} `json:"generation"`
	Document *struct {
		ID           string          `json:"id"`
		Version      int64           `json:"version"`
		Offset       int64           `json:"offset"`
		Title        string          `json:"title"`
		URL          string          `json:"url"`
		ContentType  string          `json:"content_type"`
		UpdatedAt    time.Time       `json:"updated_at"`
		LoggedAt     time.Time       `json:"logged_at"`
		SearchableAt time.Time       `json:"searchable_at"`
		Metadata     json.RawMessage `json:"metadata"`
		Text         string          `json:"text"`
		Entries      []struct {
			ID     string `json:"id"`
			Start  int    `json:"start"`
			End    int    `json:"end"`
			Tokens int    `json:"tokens"`
			Vector string `json:"vector"`
		} `json:"entries"`
	} `json:"document"`
	End *struct {
		Documents int64 `json:"documents"`
		Entries   int64 `json:"entries"`
	} `json:"end"`
}

// exportGroup is how many rows are written together: 16 MB of vectors of 384 dimensions.
const exportGroup = 10_000

func runExport(ctx context.Context, c *call, generation, out string, force bool) (err error) {
	if len(c.Args) > 0 {
		return &usageError{detail: "export takes no arguments; --out names the file"}
	}
	cl := c.client(ctx)
	body, err := cl.stream(ctx, generationPath(generation, "entries/stream"))
	if err != nil {
		return withGenerationHint(err)
	}
	defer body.Close()
	lines := json.NewDecoder(bufio.NewReaderSize(body, 1<<20))
	var head exportLine
	if err := lines.Decode(&head); err != nil || head.Generation == nil {
		return fmt.Errorf("%s does not answer like liverag: %v", cl.base, err)
	}
	if out == "" {
		out = head.Generation.Name + ".parquet"
	}
	if _, err := os.Stat(out); err == nil && !force {
		return withHint(fmt.Errorf("%s is there already", out), "--force replaces it, --out names another file")
	}
	f, err := os.CreateTemp(filepath.Dir(out), ".export-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	begin := time.Now()
	documents, rows, err := writeExport(c, f, lines, &head)
	c.Err.clearStatus()
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Close())
	}
	if err == nil {
		err = os.Rename(f.Name(), out)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if c.JSON {
		return c.Out.JSON(map[string]any{"file": out, "generation": head.Generation.Name, "documents": documents, "chunks": rows, "dim": head.Generation.Dim, "bytes": size})
	}
	c.Out.Printf("%s: %s of %s of %s, %.1f MB in %s\n", c.Out.bold(plain(out)), count(rows, "chunk"), count(documents, "document"), plain(head.Generation.Name),
		float64(size)/1e6, short(time.Since(begin)))
	return nil
}

func writeExport(c *call, f io.Writer, lines *json.Decoder, head *exportLine) (documents, rows int64, err error) {
	g := head.Generation
	w := parquet.NewGenericWriter[exportRow](f, parquet.Compression(&parquet.Zstd), parquet.CreatedBy("liverag", readBuild().Version, ""),
		parquet.KeyValueMetadata("liverag.generation", g.Name), parquet.KeyValueMetadata("liverag.recipe", string(g.Recipe)), parquet.KeyValueMetadata("liverag.dim", fmt.Sprint(g.Dim)),
		parquet.KeyValueMetadata("liverag.log", g.Origin), parquet.KeyValueMetadata("liverag.as_of", g.AsOf.Format(time.RFC3339Nano)), parquet.KeyValueMetadata("liverag.created", g.Created.Format(time.RFC3339Nano)))
	var buffer []exportRow
	flush := func() error {
		if _, err := w.Write(buffer); err != nil {
			return err
		}
		buffer = buffer[:0]
		return w.Flush()
	}
	begin := time.Now()
	for {
		var line exportLine
		if err := lines.Decode(&line); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("the server stopped before the end; try again, its log says why")
			}
			return documents, rows, err
		}
		if end := line.End; end != nil {
			if end.Documents != documents || end.Entries != rows {
				return documents, rows, fmt.Errorf("%d of %d chunks arrived", rows, end.Entries)
			}
			if err := flush(); err != nil {
				return documents, rows, err
			}
			return documents, rows, w.Close()
		}
		d := line.Document
		if d == nil {
			return documents, rows, errors.New("the server does not answer like liverag")
		}
		documents++
		metadata := string(d.Metadata)
		if metadata == "" {
			metadata = "{}"
		}
		for _, e := range d.Entries {
			vector, err := decodeVector(e.Vector, g.Dim)
			if err != nil || e.Start < 0 || e.End > len(d.Text) || e.Start > e.End {
				return documents, rows, fmt.Errorf("%s has a bad chunk: %v", plain(d.ID), err)
			}
			rows++
			// Strings of a line share its memory: a group holds texts of at most so many documents.
			buffer = append(buffer, exportRow{
				ID: e.ID, Document: d.ID, Version: d.Version, Offset: d.Offset, Start: int64(e.Start), End: int64(e.End), Tokens: int32(e.Tokens), Text: d.Text[e.Start:e.End],
				Vector: vector, Title: d.Title, URL: d.URL, ContentType: d.ContentType, Metadata: metadata, UpdatedAt: d.UpdatedAt, LoggedAt: d.LoggedAt, SearchableAt: d.SearchableAt,
			})
		}
		if len(buffer) >= exportGroup {
			if err := flush(); err != nil {
				return documents, rows, err
			}
			done := float64(documents) / float64(max(1, g.Documents))
			left := time.Duration(float64(time.Since(begin)) * (1 - done) / done).Round(time.Second)
			c.Err.Status("%3.0f %%  %s of %s, %s to go", 100*min(1, done), count(rows, "chunk"), count(documents, "document"), max(0, left))
		}
	}
}

func decodeVector(s string, dim int) ([]float32, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, err
	}
	if len(b) != 4*dim {
		return nil, fmt.Errorf("its vector has %d bytes, not 4 × %d", len(b), dim)
	}
	v := make([]float32, dim)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v, nil
}

// stream begins a call whose answer has no end in time.
func (cl *client) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, cl.base+path, nil)
	if err != nil {
		return nil, &usageError{fmt.Sprintf("%q is no base URL of a server", cl.base), "write it like http://127.0.0.1:8080"}
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		return nil, cl.unreachable(ctx, callTimeout, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return nil, cl.problem(resp, answer)
	}
	return resp.Body, nil
}
