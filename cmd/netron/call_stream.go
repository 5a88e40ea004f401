package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/d-e-v-grid/netron/stream/file"
)

// parseCallArguments reads arguments as JSON, and as streams those that are "-", standard
// input, or "@FILE": bytes, or with items the JSON values in them. The caller calls done.
func parseCallArguments(args []string, stdin io.Reader, items bool, p *progress) (values []any, done func(), err error) {
	var files []*os.File
	done = func() {
		for _, f := range files {
			_ = f.Close() // they were read only
		}
	}
	for i, arg := range args {
		name, isFile := strings.CutPrefix(arg, "@")
		if arg != "-" && !isFile {
			parsed, err := parseArguments(args[i : i+1])
			if err != nil {
				done()
				return nil, nil, err
			}
			values = append(values, parsed[0])
			continue
		}
		from, total := stdin, int64(-1)
		if isFile {
			f, err := os.Open(name)
			if err != nil {
				done()
				return nil, nil, usagef("argument %d: %v", i+1, err)
			}
			files = append(files, f)
			from = f
			if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
				total = info.Size()
			}
		}
		from = file.NewReader(from, total, p.show)
		if items {
			values = append(values, jsonItems(from))
		} else {
			values = append(values, from)
		}
	}
	return values, done, nil
}

// jsonItems returns the JSON values of a text.
func jsonItems(r io.Reader) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		d := json.NewDecoder(r)
		d.UseNumber()
		for {
			var v any
			err := d.Decode(&v)
			if errors.Is(err, io.EOF) || !yield(fromJSON(v), err) || err != nil {
				return
			}
		}
	}
}

// printItems prints a stream as it comes: bytes as they are, anything else as JSON, one item a
// line. With asJSON that goes for bytes as well.
func printItems(e *env, seq iter.Seq2[any, error], asJSON bool, p *progress) (err error) {
	out := bufio.NewWriterSize(e.stdout, 1<<20)
	defer func() {
		if flushErr := out.Flush(); err == nil {
			err = flushErr
		}
	}()
	start := time.Now()
	total := int64(0)
	last := start
	for v, err := range seq {
		if err != nil {
			return err
		}
		if b, ok := v.([]byte); ok && !asJSON {
			_, err = out.Write(b)
			total += int64(len(b))
		} else {
			err = printJSON(out, v)
		}
		if err != nil {
			return err
		}
		now := time.Now()
		if now.Sub(last) < 100*time.Millisecond {
			continue
		}
		last = now
		if err := out.Flush(); err != nil { // slow streams are seen as they come
			return err
		}
		if total > 0 {
			p.show(file.Progress{Bytes: total, Total: -1, Elapsed: now.Sub(start)})
		}
	}
	return nil
}

// progress shows how far a stream is, in the last line of a terminal.
type progress struct {
	w     io.Writer // nil if there is none to show it on
	shown bool
}

// newProgress returns a progress on standard error, if that is a terminal.
func newProgress(e *env, quiet bool) *progress {
	f, ok := e.stderr.(*os.File)
	if quiet || !ok {
		return &progress{}
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &progress{}
	}
	return &progress{w: f}
}

// barWidth is the width of the bar in characters.
const barWidth = 30

// show draws the line anew.
func (p *progress) show(at file.Progress) {
	if p.w == nil {
		return
	}
	p.shown = true
	fmt.Fprintf(p.w, "\r%s\x1b[K", progressLine(at))
}

// progressLine returns a progress as text: with a bar if the total is known.
func progressLine(at file.Progress) string {
	if at.Total <= 0 {
		return at.String()
	}
	full := int(at.Fraction() * barWidth)
	return fmt.Sprintf("[%s%s] %v", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), at)
}

// end leaves the line.
func (p *progress) end() {
	if p.shown {
		fmt.Fprintln(p.w)
		p.shown = false
	}
}
