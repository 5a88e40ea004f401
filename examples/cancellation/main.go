// Command cancellation has callers who give up, and handlers that learn of it: by a deadline,
// by a context that is canceled, and by a default for those who set none.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Archive is the service.
type Archive struct {
	begun chan struct{} // gets a value when a search has begun
	ended chan error    // gets the error of a search that was given up
}

// Search takes as long as its caller lets it. The context of a handler has the deadline of the
// call, if the caller set one, and ends when the caller gives up or the connection is lost.
func (a *Archive) Search(ctx context.Context, _ string) ([]string, error) {
	a.begun <- struct{}{}
	<-ctx.Done() // a real one passes ctx on, to a database for example
	a.ended <- ctx.Err()
	return nil, ctx.Err()
}

// Left tells how much time the caller leaves.
func (a *Archive) Left(ctx context.Context) (time.Duration, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0, errors.New("no deadline")
	}
	return time.Until(deadline), nil
}

// ArchiveClient is the service as callers see it.
type ArchiveClient struct {
	Search func(ctx context.Context, text string) ([]string, error)
	Left   func(ctx context.Context) (time.Duration, error)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	archive := &Archive{begun: make(chan struct{}, 1), ended: make(chan error, 1)}
	if err := server.Expose("archive@1.0.0", archive); err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}

	// The default is 5 s, and -1 means no limit.
	client, err := netron.New(netron.Config{CallTimeout: 100 * time.Millisecond})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		return err
	}
	remote, err := netron.Query[ArchiveClient](ctx, peer, "archive")
	if err != nil {
		return err
	}

	giveUp(ctx, archive, remote)
	expire(ctx, archive, remote)
	limit(ctx, archive, remote)

	left, err := remote.Left(ctx)
	if err != nil {
		return err
	}
	fmt.Println("the deadline of run is known there:", left > 0 && left <= 30*time.Second)
	fmt.Println("the connection is", peer.State()) // what is given up disturbs no other call
	return nil
}

// giveUp cancels a call when it has begun.
func giveUp(ctx context.Context, archive *Archive, remote *ArchiveClient) {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting.Go(func() {
		select {
		case <-archive.begun:
			cancel()
		case <-ctx.Done():
		}
	})
	_, err := remote.Search(ctx, "tea")
	fmt.Println("canceled:", netron.CodeOf(err), errors.Is(err, context.Canceled))
	fmt.Println("its handler:", <-archive.ended)
}

// expire has a call meet its deadline, which the handler has too.
func expire(ctx context.Context, archive *Archive, remote *ArchiveClient) {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err := remote.Search(ctx, "coffee")
	fmt.Println("expired:", netron.CodeOf(err), errors.Is(err, context.DeadlineExceeded))
	<-archive.begun
	fmt.Println("its handler has ended:", <-archive.ended != nil)
}

// limit has a call without a deadline meet Config.CallTimeout. The handler learns of it when
// it is over.
func limit(ctx context.Context, archive *Archive, remote *ArchiveClient) {
	_, err := remote.Search(context.WithoutCancel(ctx), "cocoa")
	fmt.Println("limited:", netron.CodeOf(err), errors.Is(err, context.DeadlineExceeded))
	<-archive.begun
	fmt.Println("its handler:", <-archive.ended)
}
