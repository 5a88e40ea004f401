package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"os"
	"strings"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/stream"
)

// connect returns a peer that is a node with a service.
func connect(service any) (peer *netron.Peer, done func()) {
	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(server.Expose("sample@1.0.0", service), server.Start()); err != nil {
		log.Fatal(err)
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	peer, err = client.Dial(context.Background(), server.Addr())
	if err != nil {
		log.Fatal(err)
	}
	return peer, func() {
		_ = client.Close()
		_ = server.Close()
	}
}

type Squares struct{}

// Up to n squares, for as long as they are wanted.
func (Squares) Squares(_ context.Context, n int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range n {
			if !yield(i*i, nil) {
				return
			}
		}
	}
}

func Example() {
	peer, done := connect(Squares{})
	defer done()
	sample, err := netron.Query[struct {
		Squares func(ctx context.Context, n int) iter.Seq2[int, error]
	}](context.Background(), peer, "sample")
	if err != nil {
		log.Fatal(err)
	}
	for square, err := range sample.Squares(context.Background(), 1_000_000) {
		if err != nil {
			log.Fatal(err)
		}
		if square > 9 {
			break // which ends the loop of the service
		}
		fmt.Println(square)
	}
	// Output:
	// 0
	// 1
	// 4
	// 9
}

type Poems struct{}

func (Poems) Poem(context.Context) io.Reader {
	return stream.Bytes(func(_ context.Context, w *stream.Writer) error {
		for _, line := range []string{"Roses are red,", "streams have an end."} {
			p, err := w.Reserve(64)
			if err != nil {
				return err
			}
			if err := w.Commit(copy(p, line+"\n")); err != nil {
				return err
			}
		}
		return nil
	})
}

// A stream of bytes that are written where they are sent from.
func ExampleBytes() {
	peer, done := connect(Poems{})
	defer done()
	sample, err := netron.Query[struct {
		Poem func(ctx context.Context) (*stream.Reader, error)
	}](context.Background(), peer, "sample")
	if err != nil {
		log.Fatal(err)
	}
	poem, err := sample.Poem(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer poem.Close()
	if _, err := io.Copy(os.Stdout, poem); err != nil {
		log.Fatal(err)
	}
	// Output:
	// Roses are red,
	// streams have an end.
}

type Echo struct{}

func (Echo) Shout(_ context.Context, d *stream.Duplex[string, string]) error {
	for word, err := range d.All() {
		if err != nil {
			return err
		}
		if err := d.Send(strings.ToUpper(word)); err != nil {
			return err
		}
	}
	return nil
}

// Both sides send and receive at once. The caller's types are those of the method, exchanged.
func ExampleDuplex() {
	peer, done := connect(Echo{})
	defer done()
	sample, err := netron.Query[struct {
		Shout func(ctx context.Context) (*stream.Duplex[string, string], error)
	}](context.Background(), peer, "sample")
	if err != nil {
		log.Fatal(err)
	}
	d, err := sample.Shout(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	for _, word := range []string{"hello", "again"} {
		if err := d.Send(word); err != nil {
			log.Fatal(err)
		}
		answer, err := d.Recv()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(answer)
	}
	d.CloseSend()
	_, err = d.Recv()
	fmt.Println(err)
	// Output:
	// HELLO
	// AGAIN
	// EOF
}

type Sums struct{}

func (Sums) Sum(_ context.Context, numbers <-chan int) int {
	sum := 0
	for n := range numbers {
		sum += n
	}
	return sum
}

// A channel as the argument of a call, which may be silent for longer than the reader of an
// ordinary stream would wait.
func ExampleWith() {
	peer, done := connect(Sums{})
	defer done()
	sample, err := netron.Query[struct {
		Sum func(ctx context.Context, numbers <-chan int) (int, error)
	}](context.Background(), peer, "sample")
	if err != nil {
		log.Fatal(err)
	}
	numbers := make(chan int)
	go func() {
		defer close(numbers)
		for i := range 5 {
			numbers <- i
		}
	}()
	ctx := stream.With(context.Background(), stream.Options{Live: true})
	fmt.Println(sample.Sum(ctx, numbers))
	// Output:
	// 10 <nil>
}
