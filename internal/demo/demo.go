// Package demo holds what a first start needs to show real answers: a corpus, questions about it with their right
// documents, small real edits, and documents for benchmarks that are the same on every machine.
//
// The corpus is the documentation of Go's standard library, read from the GOROOT that is on the machine already, so
// nothing is downloaded ([Standard]); without one it is liverag's own documentation ([Fallback]). [Questions] asks
// about the former. [Edits] changes one paragraph at a time, each with the query that finds the change.
// [BenchDocuments] needs neither.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/build"
	"io/fs"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Document is one document of the corpus. Its text is Markdown.
type Document struct {
	// ID is an import path ("net/http"), an import path with a type ("net/http.Request"), or a file's path.
	ID    string
	Title string
	// URL is the public page, empty if there is none.
	URL  string
	Text string
	// Metadata has "kind" ("package", "type" or "guide"), and for the standard library "package" and "version".
	Metadata map[string]any
}

// ErrNoSource: there is no Go tree with its source on this machine. Use Fallback.
var ErrNoSource = errors.New("no GOROOT with its source")

// FindGOROOT looks for a Go tree that has its source: where the environment or the build says, then where the go
// command says. It returns ErrNoSource if there is none.
func FindGOROOT(ctx context.Context) (string, error) {
	if hasSource(build.Default.GOROOT) {
		return build.Default.GOROOT, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		if root := strings.TrimSpace(string(out)); hasSource(root) {
			return root, nil
		}
	}
	return "", ErrNoSource
}

func hasSource(root string) bool {
	if root == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(root, "src", "fmt", "print.go"))
	return err == nil
}

// mostUsed are the packages that programs use most, the best known first, so that the first answers are about them, and whoever takes only the
// first part of the corpus has what questions are asked about.
//
// It is a list because the Go tree does not tell: counted by import statements there, unsafe and syscall are near the top, and net/http comes after
// go/ast, for it shows what a standard library is made of and not what is made with it. Counting takes 0.2 s besides.
var mostUsed = []string{
	"fmt", "strings", "net/http", "context", "time", "os", "io", "errors", "encoding/json", "sync",
	"strconv", "bufio", "bytes", "sort", "slices", "maps", "net/url", "path/filepath", "regexp", "log/slog",
	"log", "os/exec", "os/signal", "flag", "testing", "reflect", "sync/atomic", "io/fs", "math", "math/rand/v2",
	"net", "html/template", "text/template", "database/sql", "encoding/csv", "encoding/base64", "encoding/binary", "crypto/tls", "crypto/sha256", "crypto/rand",
	"unicode/utf8", "compress/gzip", "archive/zip", "embed", "runtime", "runtime/pprof", "net/http/httptest", "iter", "cmp", "builtin",
	"math/rand", "encoding/hex", "path", "unicode", "runtime/debug", "crypto/hmac", "crypto/md5", "crypto/sha1", "encoding/xml", "encoding/pem",
	"mime/multipart", "mime", "crypto/x509", "net/http/httputil", "net/http/pprof", "container/list", "container/heap", "text/tabwriter", "net/netip", "math/big",
	"os/user", "hash/fnv", "hash/crc32", "hash", "archive/tar", "compress/zlib", "crypto/sha512", "crypto/aes", "crypto/cipher", "crypto/subtle",
	"net/mail", "net/smtp", "net/textproto", "net/http/cookiejar", "math/bits", "html", "encoding/gob", "encoding", "testing/fstest", "testing/iotest",
	"testing/synctest", "expvar", "unsafe", "unique", "runtime/trace", "runtime/metrics", "image", "image/png", "image/jpeg", "image/color",
	"image/draw", "image/gif", "crypto/ed25519", "crypto/ecdsa", "crypto/rsa", "crypto/sha3", "crypto/pbkdf2", "go/format", "go/parser", "go/token",
	"go/ast", "go/build", "go/types", "text/template/parse", "text/scanner", "regexp/syntax", "unicode/utf16", "container/ring", "compress/flate", "compress/bzip2",
}

// Standard yields the documentation of the standard library below goroot: a document for each package, followed by
// one for each of its large types. The most used packages come first, then the rest by name.
//
// What is documented is what a linux/amd64 build without cgo has, whatever this machine is, so the corpus depends on
// the Go version alone. Left out are internal and vendored packages, commands, tests, and packages that export nothing.
//
// Packages are read in parallel, and each is yielded as soon as those before it were. A package that can't be read is
// yielded as an error with its ID, and the next follows; the goroutines have ended when the iteration has.
func Standard(goroot string) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		version, err := goVersion(goroot)
		if err != nil {
			yield(Document{}, err)
			return
		}
		source := os.DirFS(filepath.Join(goroot, "src"))
		packages, err := listPackages(source)
		if err != nil {
			yield(Document{}, err)
			return
		}
		type result struct {
			documents []Document
			err       error
		}
		results := make([]chan result, len(packages))
		for i := range results {
			results[i] = make(chan result, 1)
		}
		var (
			workers sync.WaitGroup
			next    atomic.Int64
			stopped atomic.Bool
		)
		defer workers.Wait()
		defer stopped.Store(true)
		for range min(runtime.GOMAXPROCS(0), len(packages)) {
			workers.Go(func() {
				for !stopped.Load() {
					i := int(next.Add(1)) - 1
					if i >= len(packages) {
						return
					}
					documents, err := documentPackage(source, packages[i], version)
					results[i] <- result{documents, err}
				}
			})
		}
		for i, importPath := range packages {
			r := <-results[i]
			if r.err != nil && !yield(Document{ID: importPath}, fmt.Errorf("document package %s: %w", importPath, r.err)) {
				return
			}
			for _, d := range r.documents {
				if !yield(d, nil) {
					return
				}
			}
		}
	}
}

// goVersion reads a tree's version, such as "go1.26.1".
func goVersion(goroot string) (string, error) {
	b, err := os.ReadFile(filepath.Join(goroot, "VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		// A tree built from a checkout has none.
		return runtime.Version(), nil
	}
	if err != nil {
		return "", fmt.Errorf("read the Go version: %w", err)
	}
	version, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(version), nil
}

// listPackages gives the import paths of the directories that may hold a public package, in the corpus' order.
func listPackages(source fs.FS) ([]string, error) {
	found := make(map[string]bool)
	err := fs.WalkDir(source, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if entry.IsDir() {
			switch {
			case name == "cmd", base == "vendor", base == "internal", base == "testdata", strings.HasPrefix(base, "_"), len(base) > 1 && base[0] == '.':
				return fs.SkipDir
			}
			return nil
		}
		if dir := path.Dir(name); dir != "." && strings.HasSuffix(base, ".go") && !strings.HasSuffix(base, "_test.go") {
			found[dir] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var packages []string
	for _, importPath := range mostUsed {
		if found[importPath] {
			packages = append(packages, importPath)
			delete(found, importPath)
		}
	}
	return append(packages, slices.Sorted(maps.Keys(found))...), nil
}

// Fallback yields the Markdown files of fsys, by path: the corpus of a machine without Go's source.
func Fallback(fsys fs.FS) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		stop := errors.New("stop")
		err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() || path.Ext(name) != ".md" {
				return nil
			}
			text, err := fs.ReadFile(fsys, name)
			if err != nil {
				return err
			}
			d := Document{ID: name, Title: heading(text), Text: string(text), Metadata: map[string]any{"kind": "guide"}}
			if d.Title == "" {
				d.Title = name
			}
			if !yield(d, nil) {
				return stop
			}
			return nil
		})
		if err != nil && err != stop {
			yield(Document{}, fmt.Errorf("read the bundled documentation: %w", err))
		}
	}
}

// heading is the text of the first Markdown heading.
func heading(text []byte) string {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if title, ok := strings.CutPrefix(lines.Text(), "# "); ok {
			return strings.TrimSpace(title)
		}
	}
	return ""
}
