package redisbus_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"testing"

	"github.com/d-e-v-grid/netron/internal/redistest"
	"github.com/d-e-v-grid/netron/pubsub"
	"github.com/d-e-v-grid/netron/pubsub/redisbus"
)

type Order struct{ ID int }

// OrderCreated is a topic that all nodes declare.
var OrderCreated = pubsub.NewTopic[Order]("order:created")

// newNode returns the bus of a node, and its bridge.
func newNode(url, name string) (*pubsub.Bus, *redisbus.Bridge) {
	bus, err := pubsub.New(pubsub.Config{})
	if err != nil {
		log.Fatal(err)
	}
	bridge, err := redisbus.New(bus, redisbus.Config{URL: url, Node: name, Patterns: []string{"order:*"}})
	if err != nil {
		log.Fatal(err)
	}
	if err := bridge.Ready(context.Background()); err != nil { // until then events stay here, and are counted
		log.Fatal(err)
	}
	return bus, bridge
}

func Example() {
	ctx := context.Background()
	url, stop := startRedis() // redis://127.0.0.1:6379 would do
	defer stop()
	shop, toMail := newNode(url, "shop")
	mail, toShop := newNode(url, "mail")
	defer toShop.Close()

	got := make(chan string)
	_, err := OrderCreated.Subscribe(mail, func(ctx context.Context, o Order) error {
		node, _ := redisbus.Node(ctx)
		got <- fmt.Sprintf("order %d of %s", o.ID, node)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := OrderCreated.Emit(ctx, shop, Order{ID: 7}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-got)

	if err := toMail.Shutdown(ctx); err != nil { // what was emitted has left
		log.Fatal(err)
	}
	stats := toMail.Stats()
	fmt.Println(stats.Sent, "sent,", stats.Lost+stats.Dropped, "lost")

	// Output:
	// order 7 of shop
	// 1 sent, 0 lost
}

// program is what redistest needs of a test.
type program struct {
	testing.TB
	dir  string
	stop func()
}

func (p *program) Helper()           {}
func (p *program) TempDir() string   { return p.dir }
func (p *program) Cleanup(fn func()) { p.stop = fn }
func (p *program) Fatal(args ...any) { log.Fatal(args...) }

// startRedis starts a Redis for the example.
func startRedis() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	p := &program{dir: dir}
	url = redistest.Start(p).URL()
	return url, func() {
		p.stop()
		os.RemoveAll(dir)
	}
}
