package intake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/stream"
)

const (
	// batchChanges and batchBytes bound what is appended in one step while the rest of the body is still being read.
	batchChanges = 256
	batchBytes   = 4 << 20
	// maxRejected bounds the lines that an answer names, so that a body of rubbish can't fill the memory. The others are counted.
	maxRejected = 10_000
)

// rejected names a line that was not kept.
type rejected struct {
	// Line counts from 1, blank lines included.
	Line   int    `json:"line"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// imported is the answer to an import.
type imported struct {
	Accepted int        `json:"accepted"`
	Rejected []rejected `json:"rejected"`
	// Unnamed is how many more lines were rejected than Rejected names.
	Unnamed int `json:"unnamed,omitempty"`
	// Token is empty if nothing was accepted.
	Token string `json:"token,omitempty"`
}

// batch is a run of good lines.
type batch struct {
	changes []stream.Change
	lines   []int
	bytes   int
	room    int64 // that a large line holds
}

// appender appends batches in order, so that the changes of one document stay in theirs.
type appender struct {
	intake   *Intake
	batches  chan batch
	share    *share
	done     chan struct{}
	accepted int
	rejected []rejected
	receipt  stream.Receipt
	err      error
}

// run appends until batches is closed or an append fails.
func (a *appender) run(ctx context.Context) {
	defer close(a.done)
	for b := range a.batches {
		if a.err = a.append(ctx, b); a.err != nil {
			return
		}
		a.share.give(b.room)
	}
}

func (a *appender) append(ctx context.Context, b batch) error {
	receipt, err := a.intake.append(ctx, b.changes...)
	var p *stream.Problem
	if errors.As(err, &p) {
		if len(b.changes) == 1 {
			a.rejected = append(a.rejected, rejected{b.lines[0], p.Code, p.Detail})
			return nil
		}
		for i := range b.changes { // one of them is to blame, the others are not
			if err := a.append(ctx, batch{changes: b.changes[i : i+1], lines: b.lines[i : i+1]}); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	a.accepted += len(b.changes)
	a.receipt.Identity = receipt.Identity
	a.receipt.Positions = keepEnds(append(a.receipt.Positions, receipt.Positions...))
	return nil
}

// keepEnds keeps, for each partition, the first and the last position. A token needs the last; that there are two tells that it is about several changes.
func keepEnds(positions []stream.Position) []stream.Position {
	type ends struct{ first, last int64 }
	of := make(map[int32]ends)
	for _, p := range positions {
		e, ok := of[p.Partition]
		if !ok {
			e = ends{p.Offset, p.Offset}
		}
		of[p.Partition] = ends{min(e.first, p.Offset), max(e.last, p.Offset)}
	}
	kept := make([]stream.Position, 0, 2*len(of))
	for partition, e := range of {
		kept = append(kept, stream.Position{Partition: partition, Offset: e.first})
		if e.last != e.first {
			kept = append(kept, stream.Position{Partition: partition, Offset: e.last})
		}
	}
	return kept
}

func (i *Intake) importLines(c echo.Context) error {
	r := c.Request()
	o, err := parseOptions(r, false)
	if err != nil {
		return err
	}
	if err := checkType(r); err != nil {
		return err
	}
	a := &appender{intake: i, batches: make(chan batch, 1), done: make(chan struct{}), share: &share{room: i.room}}
	defer a.share.close()
	ctx := r.Context()
	go a.run(ctx)
	answer, readErr := i.readLines(ctx, r.Body, o.backfill, a)
	close(a.batches)
	<-a.done

	if a.err != nil {
		err := problem.From(unwritten(ctx, a.err))
		said := *err
		said.Detail = fmt.Sprintf("%s (%d documents of this import were accepted before)", err.Detail, a.accepted)
		return &said
	}
	if readErr != nil {
		err := problem.From(incomplete(readErr))
		said := *err
		said.Detail = fmt.Sprintf("%s (%d documents before were accepted)", err.Detail, a.accepted)
		return &said
	}
	answer.Accepted = a.accepted
	answer.Rejected = append(answer.Rejected, a.rejected...)
	slices.SortFunc(answer.Rejected, func(a, b rejected) int { return a.Line - b.Line })
	if a.accepted > 0 {
		answer.Token = a.receipt.Token()
	}
	return c.JSON(http.StatusAccepted, answer)
}

// readLines hands the good lines over in batches and returns the bad ones. It stops early if the appender did.
func (i *Intake) readLines(ctx context.Context, body io.Reader, backfill bool, a *appender) (imported, error) {
	answer := imported{Rejected: []rejected{}}
	var b batch
	flush := func() (more bool) {
		if len(b.changes) == 0 {
			return true
		}
		select {
		case a.batches <- b:
			b = batch{}
			return true
		case <-a.done:
			return false
		}
	}
	var held int64 // by the line at hand
	lines := lineReader{r: bufio.NewReaderSize(body, 256<<10), limit: int(i.maxBody), large: func() (err error) {
		if !flush() { // what holds room must be on its way before more is asked for
			return nil
		}
		held, err = a.share.take(ctx, i.maxBody)
		return err
	}}
	for n := 1; ; n++ {
		line, tooLong, err := lines.next()
		if err != nil && err != io.EOF {
			flush()
			return answer, err
		}
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if line = bytes.TrimSpace(line); len(line) > 0 || tooLong {
			var change stream.Change
			p := &stream.Problem{Code: stream.CodeDocumentTooLarge, Detail: fmt.Sprintf("the text has more than %d bytes, the limit", i.config.MaxBytes)}
			if !tooLong {
				change, p = stream.DecodeLine(line, i.config.MaxBytes)
			}
			switch {
			case p == nil:
				change.Backfill = backfill
				b.changes, b.lines, b.bytes = append(b.changes, change), append(b.lines, n), b.bytes+len(line)
				b.room = min(held, int64(len(line)))
				held -= b.room
			case len(answer.Rejected) < maxRejected:
				answer.Rejected = append(answer.Rejected, rejected{n, p.Code, p.Detail})
			default:
				answer.Unnamed++
			}
		}
		if held > 0 { // more than the line needed, or all of it if the line is refused
			a.share.give(held)
			held = 0
		}
		if len(b.changes) >= batchChanges || b.bytes >= batchBytes || b.room > 0 || err == io.EOF {
			if !flush() || err == io.EOF {
				return answer, nil
			}
		}
	}
}

// lineReader reads lines of any length, and keeps at most limit bytes of one.
type lineReader struct {
	r     *bufio.Reader
	limit int
	long  []byte
	// large is called once for a line of more than largeBody; an error of it ends the reading.
	large func() error
}

// next returns the next line, which is good until the next call. The last one comes with io.EOF.
func (l *lineReader) next() (line []byte, tooLong bool, err error) {
	line, err = l.r.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return line, len(line) > l.limit, err
	}
	if cap(l.long) > largeBody {
		l.long = nil // the room that it took was given back
	}
	l.long = append(l.long[:0], line...)
	for admitted := false; err == bufio.ErrBufferFull; {
		if len(l.long) >= largeBody && !admitted {
			if err := l.large(); err != nil {
				return nil, false, err
			}
			admitted = true
		}
		line, err = l.r.ReadSlice('\n')
		if len(l.long) <= l.limit {
			l.long = append(l.long, line...)
		}
	}
	if len(l.long) > l.limit {
		l.long = nil
		return nil, true, err
	}
	return l.long, false, err
}
