package mux

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestReaderStopsForAMinute has a reader stop, of a peer that counts bytes: neither end holds more
// than is said, and nothing is lost.
func TestReaderStopsForAMinute(t *testing.T) {
	const chunk, total = 500, 2000
	synctest.Test(t, func(t *testing.T) {
		m := newStreamModel(t, 1, []string{FeatureCancel, FeatureCredit})
		ctx := t.Context()
		from, to := m.sessions[0], m.sessions[1]
		for _, s := range m.sessions {
			if _, err := s.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
		}
		window := to.cfg.Streams.Window
		w, err := from.NewWriter(false)
		if err != nil {
			t.Fatal(err)
		}
		r, err := to.ReaderFor(w.ID(), false)
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		taken := 0 // by Send; read when everything has stopped
		go func() {
			for range total {
				if err := sendText(context.Background(), w, strings.Repeat("x", chunk)); err != nil {
					sent <- err
					return
				}
				taken++
			}
			w.Close()
			sent <- nil
		}()
		if _, err := r.Next(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		st := to.streamsOf()
		st.mu.Lock()
		held := st.buffered
		st.mu.Unlock()
		if held > window+chunk {
			t.Errorf("the reader that has stopped holds %d bytes, want at most its window of %d and a chunk", held, window)
		}
		out := from.streamsOf()
		out.mu.Lock()
		queued := out.queued
		out.mu.Unlock()
		if queued > maxStreamQueue+2*chunk || taken*chunk > window+maxStreamQueue+4*chunk {
			t.Errorf("the writer holds %d bytes and has taken %d, want at most the queue and the window", queued, taken*chunk)
		}
		n := 1
		for ; ; n++ {
			if _, err := r.Next(ctx); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if err := <-sent; err != nil || n != total {
			t.Errorf("%d of %d chunks after the pause, %v", n, total, err)
		}
		from.Close(closeNormal, "")
		<-to.Done()
	})
}
