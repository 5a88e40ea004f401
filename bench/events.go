package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/pubsub"
	"github.com/d-e-v-grid/netron/rpc"
)

// Events describes a run in which the server emits events and each connection of this
// process subscribes to them. All deliveries are counted, and looked at for order.
type Events struct {
	URL         string        // of the server. Required
	Subscribers int           // connections. Default 1
	Payload     int           // bytes of each event, at least 16. Default 128
	Rate        float64       // events per second, on schedule; 0 means as fast as they go
	Warmup      time.Duration // Default a fifth of Duration
	Duration    time.Duration // Default 3 s
	Stalled     bool          // one more subscriber reads nothing; the server must not wait for it
	Pid         int           // of the server process, to measure it too; 0 means not
	Config      netron.Config // of the client's node
	Dial        []netron.DialOption
}

const (
	eventName = "bench:tick"
	warmName  = "bench:warm"

	// eventHeader is the bytes that say when an event was due, in Unix nanoseconds, and its
	// number from 0. An event that was due while the server slept between two is due when
	// it wakes: sleeps have a grain of a millisecond, which is not what is measured.
	eventHeader = 16

	// drainTime is how long the last events of a run may be on their way.
	drainTime = 10 * time.Second

	// sampleEvents is which part of the events has its latency taken when they go as fast
	// as they can.
	sampleEvents = 64
)

// publish is the argument of the task that emits.
type publish struct {
	Name    string
	Payload int
	Rate    float64
	Millis  float64
}

// taskPublish is the task that emits events for some time and returns their number.
const taskPublish = "benchPublish"

// runPublish serves it.
func runPublish(ctx context.Context, p publish) (int64, error) {
	if p.Payload < eventHeader || p.Payload > 1<<20 || p.Rate < 0 || p.Millis < 0 {
		return 0, netron.Errorf(netron.InvalidArgument, "%d bytes at %v/s for %v ms", p.Payload, p.Rate, p.Millis)
	}
	bus, payload := netron.NodeFrom(ctx).Bus(), make([]byte, p.Payload)
	start := time.Now()
	duration := time.Duration(p.Millis * float64(time.Millisecond))
	n := int64(0)
	awake := start // when the last sleep ended: what was due meanwhile is due then
	for now := start; ctx.Err() == nil; n++ {
		due := now
		if p.Rate > 0 {
			due = start.Add(time.Duration(float64(n) * float64(time.Second) / p.Rate))
			if due.After(now) {
				sleep(ctx, due)
				awake = time.Now()
			}
			if awake.After(due) {
				due = awake
			}
		}
		if due.Sub(start) >= duration {
			break
		}
		binary.BigEndian.PutUint64(payload, uint64(due.UnixNano()))
		binary.BigEndian.PutUint64(payload[8:], uint64(n))
		if _, err := bus.EmitParallel(context.Background(), p.Name, payload); err != nil {
			return n, err
		}
		if p.Rate > 0 || n%16 == 15 { // reading the clock each time would be a tenth of it
			now = time.Now()
		}
	}
	return n, ctx.Err()
}

// subscriber counts what one connection gets.
type subscriber struct {
	events    *Events
	histogram *hdrhistogram.Histogram
	next      uint64 // the number of the next event
	count     atomic.Int64
	err       atomic.Pointer[error]
}

// take is the handler. It runs on the goroutine that reads.
func (s *subscriber) take(_ context.Context, e pubsub.Event) (any, error) {
	p, ok := e.Payload().(rpc.EncodedArgs)
	if !ok {
		return nil, s.fail(fmt.Errorf("event with a payload of type %T", e.Payload()))
	}
	raw, _ := p.Encoded()
	if len(raw) < s.events.Payload {
		return nil, s.fail(fmt.Errorf("event of %d bytes", len(raw)))
	}
	payload := raw[len(raw)-s.events.Payload:]
	due, number := int64(binary.BigEndian.Uint64(payload)), binary.BigEndian.Uint64(payload[8:])
	if number != s.next {
		return nil, s.fail(fmt.Errorf("event %d came in place of %d", number, s.next))
	}
	s.next++
	if s.events.Rate > 0 || number%sampleEvents == 0 {
		now := time.Now().UnixNano()
		_ = s.histogram.RecordValue(min(max(now-due, 0), maxTracked)) // within range
	}
	s.count.Store(int64(s.next)) // last: who sees it may read the histogram
	return nil, nil
}

func (s *subscriber) fail(err error) error {
	s.err.CompareAndSwap(nil, &err)
	return err
}

// Run makes the server emit and reports the deliveries. It returns an error if an event
// is missing, or comes out of order.
func (r Events) Run(ctx context.Context) (*Result, error) {
	if r.Subscribers == 0 {
		r.Subscribers = 1
	}
	if r.Payload == 0 {
		r.Payload = 128
	}
	if r.Duration == 0 {
		r.Duration = 3 * time.Second
	}
	if r.Warmup == 0 {
		r.Warmup = r.Duration / 5
	}
	if r.Subscribers < 0 || r.Payload < eventHeader || r.Rate < 0 || r.Duration < 0 || r.Warmup < 0 {
		return nil, fmt.Errorf("bench: a negative number of subscribers, events per second or seconds, or a payload below %d bytes", eventHeader)
	}
	node, err := netron.New(r.Config)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	control, err := node.Dial(ctx, r.URL, r.Dial...)
	if err != nil {
		return nil, err
	}
	subs := make([]*subscriber, r.Subscribers)
	for i := range subs {
		subs[i] = &subscriber{events: &r, histogram: newHistogram()}
		if err := r.subscribe(ctx, node, subs[i]); err != nil {
			return nil, err
		}
	}
	if r.Stalled {
		release := make(chan struct{})
		defer close(release)
		if err := r.stall(ctx, node, release); err != nil {
			return nil, err
		}
	}
	emit := func(name string, d time.Duration) (n int64, err error) {
		ctx, cancel := context.WithTimeout(ctx, d+drainTime)
		defer cancel()
		err = control.RunTask(ctx, taskPublish, &n, publish{name, r.Payload, r.Rate, float64(d.Milliseconds())})
		return n, err
	}
	if _, err := emit(warmName, r.Warmup); err != nil {
		return nil, err
	}
	reader := rpcRun{RPC: RPC{Pid: r.Pid}}
	before, start := reader.read(), time.Now()
	n, err := emit(eventName, r.Duration)
	if err != nil {
		return nil, err
	}
	if err := awaitAll(ctx, subs, n); err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	u := reader.read()
	u.clientCPU -= before.clientCPU
	u.serverCPU -= before.serverCPU
	u.mallocs -= before.mallocs
	return r.result(subs, n, elapsed, u), nil
}

// subscribe dials a connection for a subscriber.
func (r *Events) subscribe(ctx context.Context, node *netron.Node, s *subscriber) error {
	peer, err := node.Dial(ctx, r.URL, r.Dial...)
	if err != nil {
		return err
	}
	if _, err = peer.Subscribe(ctx, eventName, s.take, netron.SubscribeInline()); err != nil {
		return err
	}
	_, err = peer.Subscribe(ctx, warmName, func(context.Context, pubsub.Event) (any, error) { return nil, nil }, netron.SubscribeInline())
	return err
}

// stall dials a connection that subscribes and then reads nothing until release. It has a
// goroutine of its own to read, which its handler can hold up.
func (r *Events) stall(ctx context.Context, node *netron.Node, release <-chan struct{}) error {
	peer, err := node.Dial(ctx, r.URL, append(slices.Clip(r.Dial), netron.DialDriver(netron.DriverStd))...)
	if err != nil {
		return err
	}
	_, err = peer.Subscribe(ctx, "bench:*", func(context.Context, pubsub.Event) (any, error) {
		<-release
		return nil, nil
	}, netron.SubscribeInline())
	return err
}

// awaitAll waits until each subscriber has all events.
func awaitAll(ctx context.Context, subs []*subscriber, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	pause := time.NewTicker(time.Millisecond)
	defer pause.Stop()
	for i, s := range subs {
		for s.count.Load() < n {
			if err := s.err.Load(); err != nil {
				return fmt.Errorf("bench: events: subscriber %d: %w", i, *err)
			}
			select {
			case <-pause.C:
			case <-ctx.Done():
				return errors.Join(fmt.Errorf("bench: events: subscriber %d got %d of %d", i, s.count.Load(), n), ctx.Err())
			}
		}
	}
	return nil
}

func (r *Events) result(subs []*subscriber, n int64, elapsed time.Duration, u usage) *Result {
	parts := make([]*hdrhistogram.Histogram, len(subs))
	for i, s := range subs {
		parts[i] = s.histogram // awaitAll has seen its last event
	}
	h := merged(parts)
	deliveries := float64(n) * float64(len(subs))
	micros := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	return &Result{
		Workload:  "events",
		Conns:     len(subs),
		Payload:   r.Payload,
		OpsPerS:   deliveries / elapsed.Seconds(),
		MBPerS:    deliveries * float64(r.Payload) / elapsed.Seconds() / 1e6,
		P50us:     micros(50),
		P99us:     micros(99),
		P999us:    micros(99.9),
		SrvRSSMB:  float64(u.serverRSS) / 1e6,
		ClientCPU: u.clientCPU.Seconds() / deliveries * 1e6,
		ServerCPU: u.serverCPU.Seconds() / deliveries * 1e6,
		AllocsPer: float64(u.mallocs) / deliveries,
	}
}
