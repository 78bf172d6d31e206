package evals

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Results are the runs kept in a directory, a JSON file each. Several processes may use it at the same time.
type Results struct {
	dir string
}

// Latest is the name of the run that was started last.
const Latest = "latest"

// ErrNoResult is wrapped where there is no run of the name asked for.
var ErrNoResult = errors.New("no such run is kept")

// OpenResults returns the runs kept in dir. The directory is made when the first one is saved.
func OpenResults(dir string) *Results { return &Results{dir} }

// Dir is the directory.
func (s *Results) Dir() string { return s.dir }

// Save keeps a result and gives it a format and, unless it has one, an ID out of its kind and the time of its start.
// It is there whole or not at all.
func (s *Results) Save(r *Result) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	r.Format = ResultFormat
	base := r.ID
	if base == "" {
		base = string(r.Kind) + "-" + r.Started.UTC().Format("20060102-150405")
	}
	for attempt := 1; ; attempt++ {
		id := base
		if attempt > 1 {
			id = fmt.Sprintf("%s-%d", base, attempt)
		}
		r.ID = id
		err := s.write(r)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// write writes a result that must not be there yet.
func (s *Results) write(r *Result) (err error) {
	encoded, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(encoded, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	// Unlike a rename, a link never replaces another run's file.
	if err := os.Link(f.Name(), s.path(r.ID)); err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	return nil
}

func (s *Results) path(id string) string { return filepath.Join(s.dir, id+".json") }

// List returns the runs kept, the earliest first, without their details. Files that can't be read are left out, and
// named by the error, which then comes beside the others. A directory that is not there has none.
func (s *Results) List() ([]Result, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list results: %w", err)
	}
	var results []Result
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || e.IsDir() || strings.HasPrefix(id, ".") {
			continue
		}
		r, err := s.read(id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.Detail = nil
		results = append(results, *r)
	}
	slices.SortFunc(results, func(a, b Result) int {
		if c := a.Started.Compare(b.Started); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return results, errors.Join(errs...)
}

// Load returns one run with its detail: by its ID, or the [Latest] of the kind ("": of any).
func (s *Results) Load(id string, kind Kind) (*Result, error) {
	if id != Latest {
		if id == "" || id != filepath.Base(id) || strings.HasPrefix(id, ".") {
			return nil, fmt.Errorf("%q: %w", id, ErrNoResult)
		}
		return s.read(id)
	}
	all, err := s.List()
	for _, r := range slices.Backward(all) {
		if kind == "" || r.Kind == kind {
			return s.read(r.ID)
		}
	}
	return nil, errors.Join(fmt.Errorf("%s in %s: %w", strings.TrimSpace("the latest "+string(kind)), s.dir, ErrNoResult), err)
}

func (s *Results) read(id string) (*Result, error) {
	content, err := os.ReadFile(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s in %s: %w", id, s.dir, ErrNoResult)
	}
	if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	r, err := decodeResult(content)
	if err != nil {
		return nil, fmt.Errorf("read result %s: %w", s.path(id), err)
	}
	r.ID = id
	return r, nil
}

// decodeResult reads a kept result.
func decodeResult(content []byte) (*Result, error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(content, &head); err != nil {
		return nil, err
	}
	if head.Format != ResultFormat {
		return nil, fmt.Errorf("its format is %d, and this program reads %d: it was kept by another version", head.Format, ResultFormat)
	}
	var r Result
	if err := json.NewDecoder(bytes.NewReader(content)).Decode(&r); err != nil {
		return nil, err
	}
	return &r, r.check()
}

// Median returns the middle of durations, or the mean of the two in the middle; 0 if there are none.
func Median(durations []time.Duration) time.Duration { return Quantile(durations, .5) }

// Quantile returns the q-quantile of durations, q from 0 to 1, interpolated between neighbours; 0 if there are none.
func Quantile(durations []time.Duration, q float64) time.Duration {
	if len(durations) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(durations))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + time.Duration((at-float64(low))*float64(sorted[high]-sorted[low]))
}
