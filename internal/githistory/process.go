package githistory

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"unicode/utf8"
)

// process is a running git whose output is read as it comes.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	said limited
}

// limited keeps the first bytes of what is written to it: git's complaints, which may be endless in a damaged repository.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), max(0, 4096-l.Len()))])
	return len(p), nil
}

// start runs a command of the repository until its output ends or ctx does.
func (r *Repository) start(ctx context.Context, args ...string) (*process, error) {
	p := &process{cmd: r.inside(ctx, args...)}
	p.cmd.Stderr = &p.said
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	p.out = bufio.NewReaderSize(out, 1<<16)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	return p, nil
}

// wait must be called once, after the output was read or ctx has ended.
func (p *process) wait() error {
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		return explain(p.cmd, err, p.said.String())
	}
	return nil
}

// complaint is what git said, on one line; known only after wait.
func (p *process) complaint() string { return strings.Join(strings.Fields(p.said.String()), " ") }

// errEnded: a git that should answer questions did not.
var errEnded = errors.New("git stopped answering")

// Reason says why a file is no text.
type Reason uint8

const (
	// TooLarge: it has more bytes than Options.MaxBytes.
	TooLarge Reason = iota + 1
	// Binary: it holds a NUL.
	Binary
	// NotUTF8: it is text in another encoding, or none.
	NotUTF8
	// Link: a symbolic link. Its content would be the path it leads to.
	Link
	// Submodule: a commit of another repository.
	Submodule
)

// blobs reads files' contents from one long-lived `git cat-file --batch`.
type blobs struct{ *process }

func (r *Repository) openBlobs(ctx context.Context) (blobs, error) {
	p, err := r.start(ctx, "cat-file", "--batch")
	return blobs{p}, err
}

// request asks for a content. Several may be asked for before the first is read.
func (b blobs) request(object string) error {
	_, err := io.WriteString(b.in, object+"\n")
	return err
}

// next reads the content that was asked for first, if it is text of at most limit bytes; else the reason why not.
func (b blobs) next(limit int64) (content []byte, reason Reason, err error) {
	head, err := b.out.ReadString('\n')
	if err != nil {
		return nil, 0, errEnded
	}
	fields := strings.Fields(head)
	if len(fields) != 3 {
		if len(fields) == 2 && fields[1] == "missing" {
			return nil, 0, fmt.Errorf("object %s is missing: `git fsck` tells more; a partial clone needs its remote", fields[0])
		}
		return nil, 0, fmt.Errorf("git cat-file answers %q", head)
	}
	size, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("git cat-file answers %q", head)
	}
	if size > limit {
		if _, err = io.CopyN(io.Discard, b.out, size+1); err != nil {
			return nil, 0, errEnded
		}
		return nil, TooLarge, nil
	}
	content = make([]byte, size+1) // with the line break that ends every answer
	if _, err = io.ReadFull(b.out, content); err != nil {
		return nil, 0, errEnded
	}
	content = content[:size]
	switch {
	case bytes.IndexByte(content, 0) >= 0:
		return nil, Binary, nil
	case !utf8.Valid(content):
		return nil, NotUTF8, nil
	}
	return content, 0, nil
}
