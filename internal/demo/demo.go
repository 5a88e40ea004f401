// Package demo is the reference service that the command line tool, the tests
// and the benchmarks use. Its names and behaviour are fixed.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/stream"
)

// ServiceName is the name under which [Expose] exposes the service.
const ServiceName = "calculator@1.0.0"

// EventPrefix begins the names of events that netron serve --demo passes on from one peer
// to all that have subscribed.
const EventPrefix = "demo:"

// InnerName is the name of the service that [Calculator.Child] returns.
const InnerName = "inner@1.0.0"

// Calculator is the reference service.
type Calculator struct {
	Version string                     `netron:"version,readonly"`
	Counter netron.Property[codec.Raw] `netron:"counter"`
}

// NewCalculator returns the reference service in its first state.
func NewCalculator() *Calculator {
	c := &Calculator{Version: "1.0.0"}
	c.Counter.Set(codec.AppendInt(nil, 0))
	return c
}

// Add returns a + b.
func (*Calculator) Add(_ context.Context, a, b float64) (float64, error) { return a + b, nil }

// Multiply returns a * b.
func (*Calculator) Multiply(_ context.Context, a, b float64) (float64, error) { return a * b, nil }

// Divide returns a / b, or an error for b = 0.
func (*Calculator) Divide(_ context.Context, a, b float64) (float64, error) {
	if b == 0 {
		return 0, errors.New("Division by zero") //nolint:staticcheck // the text is fixed, its case too
	}
	return a / b, nil
}

// Fail returns an error with a name, a code and details of its own.
func (*Calculator) Fail(_ context.Context, code codec.Raw) error {
	return &netron.Error{
		Name:    "TypeError",
		Message: "custom failure",
		Details: map[string]any{"code": code, "list": []int{1, 2, 3}},
		Fields:  map[string]any{"code": code},
	}
}

// Echo returns its argument unchanged.
func (*Calculator) Echo(_ context.Context, v codec.Raw) codec.Raw { return orUndefined(v) }

// EchoAll returns all its arguments as an array.
func (*Calculator) EchoAll(_ context.Context, vs ...codec.Raw) []codec.Raw {
	if vs == nil {
		return []codec.Raw{}
	}
	return vs
}

// TypeOf says what arrived, in the words of JavaScript.
func (*Calculator) TypeOf(_ context.Context, v codec.Raw) string {
	switch k := v.Kind(); k {
	case codec.KindNil:
		return "null"
	case codec.KindBool:
		return "boolean"
	case codec.KindNumber:
		return "number"
	case codec.KindBigInt:
		return "bigint"
	case codec.KindString:
		return "string"
	case codec.KindBinary:
		return "Buffer"
	case codec.KindArray:
		return "Array"
	case codec.KindMap:
		return "Object"
	case codec.KindMapExt:
		return "Map"
	case codec.KindSet:
		return "Set"
	case codec.KindTime:
		return "Date"
	case codec.KindRegExp:
		return "RegExp"
	case codec.KindUndefined, codec.KindInvalid:
		return "undefined"
	default:
		return k.String()
	}
}

// Child returns a new service whose method value returns n.
func (*Calculator) Child(_ context.Context, n float64) (*netron.Service, error) {
	return netron.NewServiceOf(InnerName, &Inner{n: n})
}

// Inner is the service that [Calculator.Child] returns.
type Inner struct{ n float64 }

// Value returns the number that the service was made for.
func (i *Inner) Value(context.Context) float64 { return i.n }

// Nothing has no result.
func (*Calculator) Nothing(context.Context) {}

// Fire emits an event once, then returns true.
func (*Calculator) Fire(ctx context.Context, name string, args ...codec.Raw) (bool, error) {
	return true, emit(ctx, name, args)
}

// FireMany emits an event n times, with the arguments i and size bytes, or undefined if size is
// not there. After each burst of them it lets others run. It does not wait for receivers.
func (*Calculator) FireMany(ctx context.Context, name string, n int, size, burst *int) (int, error) {
	args := []codec.Raw{nil, codec.AppendUndefined(nil)}
	if size != nil {
		if *size < 0 || *size > maxFired {
			return 0, netron.Errorf(netron.InvalidArgument, "%d bytes, want 0 to %d", *size, maxFired)
		}
		args[1] = codec.AppendBytes(nil, make([]byte, *size))
	}
	for i := range n {
		args[0] = codec.AppendInt(nil, int64(i))
		if err := emit(ctx, name, args); err != nil {
			return i, err
		}
		if burst != nil && *burst > 0 && (i+1)%*burst == 0 {
			runtime.Gosched()
		}
	}
	return n, nil
}

// maxFired limits the payload of an event of [Calculator.FireMany], in bytes.
const maxFired = 1 << 20

func emit(ctx context.Context, name string, args []codec.Raw) error {
	list := make([]any, len(args))
	for i, arg := range args {
		list[i] = arg
	}
	_, err := netron.NodeFrom(ctx).Bus().EmitParallel(ctx, name, list...)
	return err
}

// Count streams the numbers from 0 to n-1.
func (*Calculator) Count(ctx context.Context, n float64) iter.Seq2[float64, error] {
	return func(yield func(float64, error) bool) {
		for i := 0.0; i < n && ctx.Err() == nil && yield(i, nil); i++ {
		}
	}
}

// chunkSize is the size of the chunks of [Calculator.Download], in bytes.
const chunkSize = 64 << 10

// Download streams n bytes in chunks of 64 KiB, of which byte k is k & 0xff.
func (*Calculator) Download(_ context.Context, n float64) io.Reader {
	pattern := make([]byte, chunkSize)
	for k := range pattern {
		pattern[k] = byte(k)
	}
	return stream.Bytes(func(_ context.Context, w *stream.Writer) error {
		for left := int64(n); left > 0; left -= chunkSize {
			if _, err := w.Write(pattern[:min(left, chunkSize)]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Pump streams a number of chunks of one size, in bytes, which are all 0.
func (*Calculator) Pump(_ context.Context, chunks, size float64) (io.Reader, error) {
	if size < 0 || size > maxPumped {
		return nil, netron.Errorf(netron.InvalidArgument, "chunks of %v bytes, want 0 to %d", size, maxPumped)
	}
	return stream.Bytes(func(_ context.Context, w *stream.Writer) error {
		for i := 0.0; i < chunks; i++ {
			p, err := w.Reserve(int(size))
			if err != nil {
				return err
			}
			clear(p)
			if err := w.Commit(len(p)); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

// maxPumped limits the chunks of [Calculator.Pump], in bytes.
const maxPumped = 8 << 20

// Upload returns how many bytes a stream has.
func (*Calculator) Upload(_ context.Context, body *stream.Reader) (int64, error) {
	return io.Copy(io.Discard, body)
}

// SumStream adds the numbers of a stream up.
func (*Calculator) SumStream(_ context.Context, numbers iter.Seq2[float64, error]) (float64, error) {
	total := 0.0
	for n, err := range numbers {
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// Sleep returns v after ms milliseconds.
func (*Calculator) Sleep(ctx context.Context, ms float64, v codec.Raw) (codec.Raw, error) {
	t := time.NewTimer(time.Duration(ms * float64(time.Millisecond)))
	defer t.Stop()
	select {
	case <-t.C:
		return orUndefined(v), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// orUndefined returns v, or undefined where the argument was left out.
func orUndefined(v codec.Raw) codec.Raw {
	if len(v) == 0 {
		return codec.AppendUndefined(nil)
	}
	return v
}

// Sum adds numbers up.
func Sum(_ context.Context, nums ...float64) float64 {
	total := 0.0
	for _, n := range nums {
		total += n
	}
	return total
}

// SystemInfo tells about the process.
func SystemInfo(context.Context) map[string]any {
	return map[string]any{
		"platform":   runtime.GOOS,
		"arch":       runtime.GOARCH,
		"version":    runtime.Version(),
		"cpus":       runtime.NumCPU(),
		"goroutines": runtime.NumGoroutine(),
	}
}

// Expose adds the reference service and its tasks to a node.
func Expose(n *netron.Node) error {
	err := n.Expose(ServiceName, NewCalculator(), netron.Optional("Echo", 1), netron.Optional("TypeOf", 1), netron.Optional("Fail", 1), netron.Optional("Sleep", 1), netron.Optional("FireMany", 2))
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	for name, fn := range map[string]any{"sum": Sum, "systemInfo": SystemInfo} {
		if err := n.AddTask(name, fn); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	return nil
}

// Client is the reference service as Go callers see it.
type Client struct {
	Add      func(ctx context.Context, a, b float64) (float64, error)
	Multiply func(ctx context.Context, a, b float64) (float64, error)
	Divide   func(ctx context.Context, a, b float64) (float64, error)
	Fail     func(ctx context.Context, code any) error
	Echo     func(ctx context.Context, v any) (any, error)
	EchoAll  func(ctx context.Context, vs ...any) ([]any, error)
	TypeOf   func(ctx context.Context, v any) (string, error)
	Child    func(ctx context.Context, n float64) (*InnerClient, error)
	Nothing  func(ctx context.Context) error
	Sleep    func(ctx context.Context, ms float64, v any) (any, error)

	Count     func(ctx context.Context, n float64) iter.Seq2[float64, error]
	Download  func(ctx context.Context, n float64) (*stream.Reader, error)
	Pump      func(ctx context.Context, chunks, size float64) (*stream.Reader, error)
	Upload    func(ctx context.Context, body io.Reader) (int64, error)
	SumStream func(ctx context.Context, numbers iter.Seq2[float64, error]) (float64, error)

	Version    func(ctx context.Context) (string, error)  `netron:"version,get"`
	Counter    func(ctx context.Context) (any, error)     `netron:"counter,get"`
	SetCounter func(ctx context.Context, value any) error `netron:"counter,set"`
}

// InnerClient is the service that Child returns, as Go callers see it.
type InnerClient struct {
	Service *netron.Stub

	Value func(ctx context.Context) (float64, error)
}
