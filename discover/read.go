package discover

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// bundle is how long marks wait for others, if nobody waits for them.
	bundle = 2 * time.Millisecond
	// tidyAtOnce is how many remains one node removes at a time.
	tidyAtOnce = 1000
	// maxListed is how much of the index is read in any case: more than there may be
	// nodes, since not all are alive.
	maxListed = 100_000
)

// reader is what the goroutine that reads owns.
type reader struct {
	*Registry
	book  *book
	sweep time.Time     // when to read everything
	tidy  time.Time     // when to look for remains
	since time.Duration // when the store had last answered before the round began, or the failed ones before it; negative if unset
	probe time.Time     // when to ask again whether Redis takes signs of life; zero while it does
	ahead int           // how many nodes to read by one batch
	usual time.Duration // how long an answer takes of late
}

// read keeps the view current until ctx ends.
func (r *Registry) read(ctx context.Context) {
	now := time.Now()
	rd := &reader{Registry: r, book: newBook(&r.cfg), sweep: now, tidy: now.Add(spread(r.cfg.cleanup())), since: -1, ahead: firstAhead}
	for rd.await(ctx) {
		todo := r.marks.take()
		err := unanswered(ctx, rd.round(ctx, &todo))
		if ctx.Err() != nil {
			err = ErrClosed
		}
		r.marks.finish(todo, err)
		if ctx.Err() != nil {
			return
		}
		r.report(partRead, err)
		r.proof.check(r)
		if err != nil && !sleep(ctx, r.cfg.retryDelay()) {
			return
		}
	}
}

// await waits until there is something to read. It returns false if ctx ends.
func (rd *reader) await(ctx context.Context) bool {
	for !rd.marks.pending() {
		now := time.Now()
		ids, next := rd.book.due(now)
		if next.IsZero() || rd.sweep.Before(next) {
			next = rd.sweep
		}
		if !rd.probe.IsZero() && rd.probe.Before(next) {
			next = rd.probe
		}
		if len(ids) > 0 || !next.After(now) {
			return ctx.Err() == nil
		}
		t := time.NewTimer(next.Sub(now))
		select {
		case <-t.C:
		case <-rd.marks.wake:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
	t := time.NewTimer(bundle)
	defer t.Stop()
	for !rd.marks.hurries() {
		select {
		case <-t.C:
			return ctx.Err() == nil
		case <-rd.marks.wake:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// round reads what there is to read, and publishes it.
func (rd *reader) round(ctx context.Context, todo *round) error {
	start := time.Now()
	if rd.since < 0 {
		rd.since = time.Duration(rd.answered.Load())
	}
	todo.all = todo.all || !start.Before(rd.sweep)
	if rd.book.overdue(start) || !rd.probe.IsZero() && !start.Before(rd.probe) {
		if err := rd.doubt(ctx, start); err != nil {
			return err
		}
	}
	ids, index, err := rd.choose(ctx, todo, start)
	if err != nil {
		return err
	}
	if err := rd.readAll(ctx, ids, todo, start); err != nil {
		return err
	}
	rd.since = -1
	rd.publish()
	if todo.all {
		rd.sweep = start.Add(spread(rd.cfg.reconcile()))
		rd.confirm(start.Sub(rd.born))
		select {
		case <-rd.ready:
		default:
			close(rd.ready)
		}
	}
	if index != nil && !start.Before(rd.tidy) {
		rd.tidyUp(ctx, index, start)
	}
	return nil
}

// doubt asks whether Redis takes signs of life, before somebody is gone for having given
// none. While it does not nobody goes, and afterwards all have the time that they had.
func (rd *reader) doubt(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, rd.cfg.timeout())
	defer cancel()
	at := time.Now()
	refusal, err := rd.store.takes(ctx)
	if err != nil {
		return explain("ask whether nodes can register", err)
	}
	rd.answer()
	rd.catchUp(time.Since(at))
	rd.report(partWrite, explain("nobody can register", refusal))
	rd.probe = time.Time{}
	if refusal != nil {
		rd.probe = now.Add(rd.cfg.retryDelay())
		rd.book.spare(now.Add(rd.cfg.ttl() + rd.cfg.grace()))
	}
	return nil
}

// choose returns the ids to read, and the index if it had to be read for that and is whole.
func (rd *reader) choose(ctx context.Context, todo *round, now time.Time) (ids []string, index map[string]bool, err error) {
	wanted := make(map[string]bool)
	due, _ := rd.book.due(now)
	for _, id := range due {
		wanted[id] = true
	}
	for id := range todo.ids {
		wanted[id] = true
	}
	if todo.all || todo.list {
		ctx, cancel := context.WithTimeout(ctx, rd.cfg.timeout())
		defer cancel()
		at := time.Now()
		listed, whole, err := rd.store.list(ctx, max(maxListed, 2*rd.cfg.maxNodes()))
		if err != nil {
			return nil, nil, explain("read the list of nodes", err)
		}
		rd.answer()
		rd.catchUp(time.Since(at))
		known := rd.book.known()
		index = make(map[string]bool, len(listed))
		for _, id := range listed {
			if !isID(id) {
				rd.stats.refused.Add(1)
				continue
			}
			index[id] = true
			wanted[id] = wanted[id] || todo.all || !rd.book.shows(id)
		}
		for _, id := range known {
			wanted[id] = wanted[id] || todo.all || !index[id]
		}
		if !whole {
			index = nil
		}
	}
	for id, is := range wanted {
		if is {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, rd.book.order)
	return ids, index, nil
}

// readAll reads nodes and enters them into the book: those of the view first, and apart from
// strangers, whose records may be anything.
func (rd *reader) readAll(ctx context.Context, ids []string, todo *round, asked time.Time) error {
	ahead, isFull, strangers := rd.ahead, len(ids) >= rd.ahead, false
	for len(ids) > 0 {
		chunk := ids[:min(len(ids), rd.ahead)]
		if i := slices.IndexFunc(chunk, func(id string) bool { return !rd.book.shows(id) }); i > 0 {
			chunk = chunk[:i]
		}
		ids = ids[len(chunk):]
		if !strangers && !rd.book.shows(chunk[0]) {
			strangers = true
			rd.publish() // those that were known need not wait
		}
		readings, err := rd.readOnce(ctx, chunk)
		if err != nil {
			return err
		}
		now := time.Now()
		for i, id := range chunk {
			rd.enter(id, &readings[i], todo.ids[id], asked, now)
		}
	}
	if isFull && rd.ahead == ahead {
		rd.ahead = min(readAhead, 2*rd.ahead)
	}
	return nil
}

func (rd *reader) readOnce(ctx context.Context, ids []string) ([]reading, error) {
	ctx, cancel := context.WithTimeout(ctx, rd.cfg.timeout())
	defer cancel()
	at := time.Now()
	readings, err := rd.store.read(ctx, ids)
	if err != nil {
		rd.pace(nil, err)
		return nil, explain("read nodes", err)
	}
	rd.answer()
	rd.catchUp(time.Since(at))
	rd.pace(readings, nil)
	return readings, nil
}

// pace chooses how many nodes to read at a time from now on, by how large the last ones were
// and whether they took too long.
func (rd *reader) pace(readings []reading, err error) {
	size := 0
	for i := range readings {
		size += readings[i].fields.size()
	}
	switch {
	case size > batchBytes:
		rd.ahead = max(1, len(readings)*(batchBytes>>10)/(size>>10))
	case rd.since < 0 && errors.Is(err, context.DeadlineExceeded): // it is there
		rd.ahead = max(1, rd.ahead/4)
	}
}

// catchUp makes up for the time in which the store did not answer: no node could give a
// sign of life in it. An answer that took as long as others of late is none that was away,
// or no time would pass with a store that is slow.
func (rd *reader) catchUp(took time.Duration) {
	if rd.since >= 0 {
		away := time.Since(rd.born) - rd.since
		rd.since = -1
		if away-rd.usual > rd.cfg.heartbeat()*3/2 {
			rd.book.shift(away)
		}
	}
	rd.usual = max(took, rd.usual*7/8)
}

// enter puts a reading into the book, and counts what is wrong with it.
func (rd *reader) enter(id string, got *reading, left bool, asked, now time.Time) {
	o := rd.book.apply(id, got, left, asked, now)
	if o.refused != nil {
		rd.stats.refused.Add(1)
		rd.complain("record", "discover: the record of a node makes no sense", "node", id, "error", o.refused)
	}
	if o.odd > 0 {
		rd.stats.odd.Add(uint64(o.odd))
		rd.complain("odd", "discover: parts of the record of a node make no sense", "node", id, "parts", o.odd)
	}
	if o.crowded {
		rd.stats.crowded.Add(1)
		rd.complain("crowded", "discover: there are too many nodes", "node", id, "limit", rd.cfg.maxNodes())
	}
	if own, instance := rd.own.identity(); id == own && (got.ttl <= 0 || got.fields[fieldInstance] != instance) {
		rd.own.poke() // somebody has removed it, or has written over it
	}
}

// publish makes the view what the book says.
func (rd *reader) publish() {
	nodes, changes, events := rd.book.publish()
	if len(changes) == 0 {
		return
	}
	s := newSnapshot(nodes)
	s.adopt(rd.view.Load(), changes)
	rd.stats.views.Add(1)
	rd.watchers.mu.Lock()
	defer rd.watchers.mu.Unlock()
	rd.view.Store(s)
	rd.watchers.send(events)
}

// tidyUp removes from the index what is long dead. What goes wrong is tried again later.
func (rd *reader) tidyUp(ctx context.Context, index map[string]bool, now time.Time) {
	rd.tidy = now.Add(spread(rd.cfg.cleanup()))
	ids := rd.book.remains(index, now, rd.cfg.ttl(), tidyAtOnce)
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rd.cfg.timeout())
	defer cancel()
	n, err := rd.store.tidy(ctx, ids)
	rd.stats.tidied.Add(uint64(n))
	if err != nil {
		rd.log.Debug("discover: the index is not tidied", "error", err)
	}
}

// spread returns a random time around d.
func spread(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// sleep waits, and returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
