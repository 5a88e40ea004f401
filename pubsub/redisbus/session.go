package redisbus

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// batchEvents is how many events are sent before Redis has confirmed them.
const batchEvents = 512

// connect keeps up a session with Redis until ctx ends.
func (b *Bridge) connect(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := b.session(ctx, attempt)
		if ctx.Err() != nil {
			err = ErrClosed
		}
		_, before := b.out.state()
		switch wasOpen := b.out.ended(err); {
		case ctx.Err() != nil:
			return
		case wasOpen || before == errNotYet: //nolint:errorlint // it is never wrapped
			b.log.Warn("redisbus: Redis is away", "channel", b.channel, "error", err)
		default:
			b.log.Debug("redisbus: Redis is still away", "channel", b.channel, "error", err)
		}
		delay := b.cfg.retryDelay()
		select {
		case <-time.After(delay/2 + rand.N(delay)):
		case <-ctx.Done():
		}
	}
}

// session connects to Redis, and moves events until that ends. It never returns nil.
func (b *Bridge) session(ctx context.Context, attempt int) error {
	ctx, cancel := context.WithCancel(ctx)
	number := b.out.begin()
	client, err := rueidis.NewClient(b.address(ctx, attempt))
	if err != nil {
		cancel()
		if client != nil {
			client.Close()
		}
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { b.send(ctx, client) })
	hooked := rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" && b.out.opened(number) {
			b.stats.connects.Add(1)
			b.log.Info("redisbus: Redis is there", "channel", b.channel, "node", b.self.node)
		}
	})
	err = client.Receive(hooked, client.B().Subscribe().Channel(b.channel).Build(), b.arrive)
	cancel() // closes the connection too, so nothing waits for Redis below
	wg.Wait()
	client.Close()
	if err == nil {
		err = errors.New("the subscription has ended")
	}
	return err
}

// address returns how to connect for an attempt. The connection is closed when ctx ends.
func (b *Bridge) address(ctx context.Context, attempt int) rueidis.ClientOption {
	o := b.redis
	if n := len(o.InitAddress); o.ForceSingleClient && n > 1 {
		o.InitAddress = []string{o.InitAddress[attempt%n]}
	}
	dial := o.DialCtxFn
	if dial == nil {
		dial = dialTCP
	}
	o.DialCtxFn = func(dialing context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		dialing, cancel := context.WithCancel(dialing)
		defer cancel()
		stop := context.AfterFunc(ctx, cancel)
		defer stop()
		conn, err := dial(dialing, addr, d, t)
		if err == nil {
			context.AfterFunc(ctx, func() { conn.Close() })
		}
		return conn, err
	}
	return o
}

func dialTCP(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	if t != nil {
		return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", addr)
	}
	return d.DialContext(ctx, "tcp", addr)
}

// send publishes what is queued until ctx ends. Nothing is published twice.
func (b *Bridge) send(ctx context.Context, client rueidis.Client) {
	var batch []message
	var commands rueidis.Commands
	for {
		clear(batch)
		batch = b.out.queue.take(batch[:0], batchEvents)
		if len(batch) == 0 {
			select {
			case <-b.out.queue.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		commands = commands[:0]
		for _, m := range batch {
			commands = append(commands, client.B().Publish().Channel(b.channel).Message(rueidis.BinaryString(m)).Build())
		}
		sent := 0
		for _, r := range client.DoMulti(ctx, commands...) {
			if r.Error() == nil {
				sent++
			}
		}
		if sent < len(batch) {
			commands = nil // the client may still look at them
		}
		b.out.settle(sent, len(batch)-sent)
	}
}
