package external

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/chunker"
)

// ExecPrefix begins a strategy that is a program, as in exec:./my_chunker.py --size 400. Words are separated by spaces; there is no shell.
const ExecPrefix = "exec:"

// ExecConfig says which program cuts.
type ExecConfig struct {
	// Command is the program and its arguments, without the prefix.
	Command string
	// Dir is where programs may be: one elsewhere, or below it, is refused, and so is one that other users of the machine may write. Relative commands are looked up in it. Required.
	Dir string
	// Processes is how many may run at once. Default 2.
	Processes int
	// Deadline is how long one text may take before its process is killed. Default 30 s.
	Deadline time.Duration
	// Counter counts the tokens of chunks. Required.
	Counter chunker.Counter
	// Logger is told what a program writes to its standard error. Required.
	Logger *slog.Logger
}

// ErrForbidden: the program is not one that may be run.
var ErrForbidden = errors.New("the program may not be run")

// Exec is a chunker that is a program. Processes are started when they are needed, live on from text to text, and are killed by Close.
type Exec struct {
	config ExecConfig
	path   string
	args   []string
	digest string
	name   string

	slots chan *process // holds each free place, with a process in it or nil
	once  sync.Once
	// closing ends every process.
	closing context.Context
	close   context.CancelFunc
}

// OpenExec finds the program and reads its bytes: they are part of its Name, so that another version of it is another recipe. Nothing is started yet.
func OpenExec(c ExecConfig) (*Exec, error) {
	if c.Processes == 0 {
		c.Processes = 2
	}
	if c.Deadline == 0 {
		c.Deadline = 30 * time.Second
	}
	words := strings.Fields(c.Command)
	if len(words) == 0 {
		return nil, errors.New("exec: names no program, as in exec:./my_chunker.py")
	}
	path, err := permitted(c.Dir, words[0])
	if err != nil {
		return nil, err
	}
	e := &Exec{config: c, path: path, args: words[1:], slots: make(chan *process, c.Processes)}
	if e.digest, err = e.fingerprint(); err != nil {
		return nil, err
	}
	e.name = fmt.Sprintf("exec/1 %s %s", strings.Join(words, " "), e.digest)
	e.closing, e.close = context.WithCancel(context.Background())
	for range c.Processes {
		e.slots <- nil
	}
	return e, nil
}

// permitted returns the program's path, if it is one that may be run: whoever can send a recipe chooses the program, so it has to be one that the
// directory's owner has put there.
func permitted(dir, command string) (string, error) {
	if dir == "" {
		return "", fmt.Errorf("%w: no directory of programs is set", ErrForbidden)
	}
	root, err := filepath.Abs(dir)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return "", fmt.Errorf("directory of programs: %w", err)
	}
	path := command
	if !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", fmt.Errorf("find the program: %w", err)
	}
	if filepath.Dir(path) != root { // nor below it: started in the root directory, every program of the machine would be
		return "", fmt.Errorf("%w: %s is not in %s, where this server's programs are", ErrForbidden, path, root)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("find the program: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%w: %s is not a file", ErrForbidden, path)
	}
	if err := executable(path, info); err != nil {
		return "", err
	}
	return path, nil
}

// fingerprint is made of the program's bytes, and of those of each argument that is a file beside it.
func (e *Exec) fingerprint() (string, error) {
	sum := sha256.New()
	for i, name := range append([]string{e.path}, e.args...) {
		if i > 0 {
			info, err := os.Stat(filepath.Join(filepath.Dir(e.path), name))
			if err != nil || !info.Mode().IsRegular() {
				continue
			}
			name = filepath.Join(filepath.Dir(e.path), name)
		}
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("read the program: %w", err)
		}
		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("read the program: %w", err)
		}
		sum.Write([]byte{0})
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// Name implements [chunker.Chunker].
func (e *Exec) Name() string { return e.name }

// Split implements [chunker.Chunker]. A process that dies or is too slow is replaced, and the text tried once more: only if that fails too it is the text's fault.
func (e *Exec) Split(ctx context.Context, contentType, text string) ([]chunker.Chunk, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	line, err := json.Marshal(request{contentType, text})
	if err != nil {
		return nil, refused(e.name, err)
	}
	line = append(line, '\n')
	for attempt := 1; ; attempt++ {
		reply, err := e.ask(ctx, line, text, attempt > 1)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			chunks, _, err := decode(reply, text, e.config.Counter)
			if err != nil {
				return nil, refused(e.name, err)
			}
			return chunks, nil
		case errors.As(err, new(*chunker.Error)):
			return nil, err
		case attempt == 2:
			return nil, refused(e.name, err)
		}
		e.config.Logger.Warn("the chunker failed on a text; it is tried once more in a new process", "chunker", e.name, "error", err)
	}
}

// ask has one process answer; anew: one that is started for this, since those that wait may have died with the last one. An error other than a *chunker.Error is the process's end.
func (e *Exec) ask(ctx context.Context, line []byte, text string, anew bool) ([]byte, error) {
	var p *process
	select {
	case p = <-e.slots:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.closing.Done():
		return nil, unavailable(e.name, errors.New("it is closed"))
	}
	if anew && p != nil {
		p.end(nil)
		p = nil
	}
	if p == nil {
		var err error
		if p, err = e.start(); err != nil {
			e.slots <- nil
			return nil, unavailable(e.name, err)
		}
	}
	reply, err := p.ask(ctx, line, longest(text), e.config.Deadline)
	if err != nil {
		err = p.end(err)
		p = nil
	}
	e.slots <- p
	return reply, err
}

// Close kills the processes. Splits in progress fail.
func (e *Exec) Close() error {
	e.once.Do(func() {
		e.close()
		for range e.config.Processes {
			if p := <-e.slots; p != nil {
				p.end(nil)
			}
		}
	})
	return nil
}

// process is one that runs.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	cancel context.CancelFunc
	said   *tail
}

func (e *Exec) start() (*process, error) {
	digest, err := e.fingerprint()
	if err != nil {
		return nil, err
	}
	if digest != e.digest {
		return nil, fmt.Errorf("%s is not the program any more that this generation was begun with: put it back, or replay with the new one and promote that", e.path)
	}
	ctx, cancel := context.WithCancel(e.closing)
	p := &process{cmd: exec.CommandContext(ctx, e.path, e.args...), cancel: cancel, said: &tail{logger: e.config.Logger, name: filepath.Base(e.path)}}
	p.cmd.Dir = filepath.Dir(e.path)
	p.cmd.Stderr = p.said
	p.cmd.WaitDelay = time.Second // a grandchild may hold its output open
	ownGroup(p.cmd)
	in, err := p.cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start the program: %w", err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start the program: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("start the program: %w (is it executable, and does its first line name an interpreter?)", err)
	}
	p.in, p.out = in, bufio.NewReaderSize(out, 64<<10)
	return p, nil
}

// ask writes a line and reads one. When ctx ends or the time is over the process is killed, which ends both.
func (p *process) ask(ctx context.Context, line []byte, most int64, deadline time.Duration) ([]byte, error) {
	timer := time.AfterFunc(deadline, p.cancel)
	stop := context.AfterFunc(ctx, p.cancel)
	late := func(err error) error {
		if !timer.Stop() {
			return fmt.Errorf("no answer within %s", deadline)
		}
		return err
	}
	defer stop()
	// It may answer before it has read everything: writing must not wait for reading.
	written := make(chan error, 1)
	go func() {
		_, err := p.in.Write(line)
		written <- err
	}()
	reply, err := readLine(p.out, most)
	if err != nil {
		err = late(err)
		p.cancel()
		<-written
		return nil, err
	}
	if err := <-written; err != nil {
		return nil, late(fmt.Errorf("it reads no more: %w", err))
	}
	if !timer.Stop() {
		return nil, fmt.Errorf("no answer within %s", deadline)
	}
	return reply, nil
}

func readLine(r *bufio.Reader, most int64) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case int64(len(line)) > most:
			return nil, errTooLong
		case err == nil:
			return bytes.TrimRight(line, "\r\n"), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed):
			return nil, errors.New("it ended without an answer")
		default:
			return nil, fmt.Errorf("read its answer: %w", err)
		}
	}
}

// end kills the process, waits for it, and says of the reason what the process itself had to say.
func (p *process) end(reason error) error {
	p.cancel()
	p.in.Close()
	err := p.cmd.Wait()
	if reason == nil {
		return nil
	}
	if said := p.said.last(); said != "" {
		reason = fmt.Errorf("%w; its last words: %s", reason, said)
	} else if exit := new(exec.ExitError); errors.As(err, &exit) && exit.Exited() {
		reason = fmt.Errorf("%w (%s)", reason, exit)
	}
	return reason
}

// tail logs what a program writes to its standard error, at debug level, and keeps the end of it.
type tail struct {
	logger *slog.Logger
	name   string
	mu     sync.Mutex
	kept   []byte
}

const tailBytes = 2 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if len(t.kept) > tailBytes {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-tailBytes:]...)
	}
	t.logger.Debug("the chunker writes", "program", t.name, "text", excerpt(b))
	return len(b), nil
}

// last is the last line that says something: of a Python traceback that is the error.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.kept), []byte("\n"))
	return excerpt(lines[len(lines)-1])
}
