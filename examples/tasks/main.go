// Command tasks has functions that peers run by name, for what does not deserve a
// service.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Options are an argument of a task. On the wire it is an object with the members upper
// and suffix.
type Options struct {
	Upper  bool
	Suffix string
}

// process is a task. Its first parameter is a context; the others are its arguments. The
// pointer may be left out by the caller.
func process(ctx context.Context, words []string, o *Options) (string, error) {
	text := strings.Join(words, " ")
	if o != nil && o.Upper {
		text = strings.ToUpper(text)
	}
	if o != nil {
		text += o.Suffix
	}
	return fmt.Sprintf("%s, for %s", text, netron.PeerFrom(ctx).ID()), nil
}

// hang is a task that does not end by itself.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	// Names are given once: a second AddTask with the same name is an error.
	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0", TaskOverwrite: netron.TaskThrow})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Start(); err != nil {
		return err
	}
	if err := errors.Join(
		server.AddTask("process", process),
		server.AddTask("hang", hang, netron.TaskLimit(50*time.Millisecond)),
	); err != nil {
		return err
	}
	fmt.Println("once more:", netron.CodeOf(server.AddTask("process", process)))

	client, err := netron.New(netron.Config{ID: "client"})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		return err
	}
	var text string
	if err := peer.RunTask(ctx, "process", &text, []string{"good", "morning"}); err != nil {
		return err
	}
	fmt.Println(text)
	if err := peer.RunTask(ctx, "process", &text, []string{"good", "night"}, Options{Upper: true, Suffix: "!"}); err != nil {
		return err
	}
	fmt.Println(text)

	// The limit of a task is the callee's: who asks gets an answer even if the task goes on.
	err = peer.RunTask(ctx, "hang", nil)
	fmt.Println(netron.CodeOf(err), errors.Is(err, context.DeadlineExceeded))

	if err := server.RemoveTask("process"); err != nil {
		return err
	}
	fmt.Println(netron.CodeOf(peer.RunTask(ctx, "process", nil)))
	return nil
}
