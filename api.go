package netron

import (
	"context"
	"time"

	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/pubsub"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// What users of the package name most, from package rpc.
type (
	// Peer is the other side of a connection.
	Peer = rpc.Peer
	// Pool is several connections to one peer.
	Pool = rpc.Pool
	// PoolClient is a service as the peers of a [Pool] have it.
	PoolClient[T any] = rpc.PoolClient[T]
	// Client calls a service at whichever nodes offer it.
	Client = balance.Client
	// Service is a set of methods that a node exposes.
	Service = rpc.Service
	// Stub is a remote service as its callers see it.
	Stub = rpc.Stub
	// Future is a call under way.
	Future = rpc.Future
	// Reply is the answer that a callback gets.
	Reply = rpc.Reply
	// Error is an error that travels between peers.
	Error = rpc.Error
	// Code classifies an [Error].
	Code = rpc.Code
	// Header is text that travels beside the arguments of a request, or its result.
	Header = rpc.Header
	// Request is an operation as a [Middleware] sees it.
	Request = rpc.Request
	// Op is what a [Request] wants.
	Op = rpc.Op
	// Handler carries out a [Request].
	Handler = rpc.Handler
	// Middleware wraps a [Handler].
	Middleware = rpc.Middleware
	// State says how a peer is connected.
	State = rpc.State
	// StateEvent is a change of it.
	StateEvent = rpc.StateEvent
	// Reason says why a peer came into a [State].
	Reason = rpc.Reason
	// ExposeOption changes how [Node.Expose] reads a Go value.
	ExposeOption = rpc.ExposeOption
	// TaskOption changes how [Node.AddTask] adds a task.
	TaskOption = rpc.TaskOption
	// EventConfig says how the events of a node travel.
	EventConfig = rpc.EventConfig

	// StreamConfig says how the streams of a node travel.
	StreamConfig = rpc.StreamConfig
	// PeerSubscription is a subscription to the events of a peer.
	PeerSubscription = rpc.PeerSubscription
	// SubscribeOption changes a subscription to the events of a peer.
	SubscribeOption = rpc.SubscribeOption
	// ServiceEvent is the argument of the events service:expose and service:unexpose.
	ServiceEvent = rpc.ServiceEvent
	// PeerEvent is the argument of the events peer:connect and peer:disconnect.
	PeerEvent = rpc.PeerEvent
	// TaskOverwrite says what [Node.AddTask] does when the name is taken.
	TaskOverwrite = rpc.TaskOverwrite
)

// The strategies for the name of a task that is taken. See [rpc.TaskOverwrite].
const (
	TaskReplace = rpc.TaskReplace
	TaskSkip    = rpc.TaskSkip
	TaskThrow   = rpc.TaskThrow
)

// The codes of an [Error].
const (
	Canceled           = rpc.Canceled
	Unknown            = rpc.Unknown
	InvalidArgument    = rpc.InvalidArgument
	DeadlineExceeded   = rpc.DeadlineExceeded
	NotFound           = rpc.NotFound
	AlreadyExists      = rpc.AlreadyExists
	PermissionDenied   = rpc.PermissionDenied
	ResourceExhausted  = rpc.ResourceExhausted
	FailedPrecondition = rpc.FailedPrecondition
	Aborted            = rpc.Aborted
	OutOfRange         = rpc.OutOfRange
	Unimplemented      = rpc.Unimplemented
	Internal           = rpc.Internal
	Unavailable        = rpc.Unavailable
	DataLoss           = rpc.DataLoss
	Unauthenticated    = rpc.Unauthenticated
)

// The states of a peer. See [rpc.State].
const (
	StateConnecting   = rpc.StateConnecting
	StateConnected    = rpc.StateConnected
	StateReconnecting = rpc.StateReconnecting
	StateDraining     = rpc.StateDraining
	StateClosed       = rpc.StateClosed
)

// The reasons why a peer came into a state. More may be added. See [rpc.Reason].
const (
	ReasonDialled       = rpc.ReasonDialled
	ReasonReady         = rpc.ReasonReady
	ReasonLost          = rpc.ReasonLost
	ReasonClosedByPeer  = rpc.ReasonClosedByPeer
	ReasonGoingAway     = rpc.ReasonGoingAway
	ReasonDialFailed    = rpc.ReasonDialFailed
	ReasonClosed        = rpc.ReasonClosed
	ReasonExhausted     = rpc.ReasonExhausted
	ReasonPublishFailed = rpc.ReasonPublishFailed
	ReasonPublished     = rpc.ReasonPublished
)

// The operations that a [Request] may want. See [rpc.Op].
const (
	OpCall = rpc.OpCall
	OpGet  = rpc.OpGet
	OpSet  = rpc.OpSet
	OpTask = rpc.OpTask
)

// Driver is a way to drive connections.
type Driver = engine.Driver

// The drivers. See [engine.Driver].
const (
	DriverAuto  = engine.DriverAuto
	DriverStd   = engine.DriverStd
	DriverEpoll = engine.DriverEpoll
)

// ParseDriver returns the driver with a name: auto, std or epoll.
func ParseDriver(name string) (Driver, error) { return engine.ParseDriver(name) }

// NewService returns a service without methods; add them with [rpc.Handle].
func NewService(name, version string) *Service { return rpc.NewService(name, version) }

// NewServiceOf builds a service from a Go value, as [Node.Expose] does, without exposing
// it: for a method that returns it. See [rpc.NewServiceOf].
func NewServiceOf(qualified string, value any, opts ...ExposeOption) (*Service, error) {
	return rpc.NewServiceOf(qualified, value, opts...)
}

// Func adds a function, whose first parameter is a context, to a service as a method.
// See [rpc.Func].
func Func(s *Service, name string, fn any) { rpc.Func(s, name, fn) }

// Name gives a Go method a name of its own choice on the wire.
func Name(goMethod, wireName string) ExposeOption { return rpc.Name(goMethod, wireName) }

// Optional declares the last n parameters of a Go method optional.
func Optional(goMethod string, n int) ExposeOption { return rpc.Optional(goMethod, n) }

// Inline declares that Go methods run on the goroutine that reads the connection,
// without a hand-over to a worker. They must never block. See [rpc.Service.Inline].
func Inline(goMethods ...string) ExposeOption { return rpc.Inline(goMethods...) }

// Overwrite says what [Node.AddTask] does when the name is taken, instead of
// Config.TaskOverwrite.
func Overwrite(strategy TaskOverwrite) TaskOption { return rpc.Overwrite(strategy) }

// TaskLimit is the time limit of a task, instead of Config.TaskTimeout. Zero means
// that default, a negative time none.
func TaskLimit(d time.Duration) TaskOption { return rpc.TaskLimit(d) }

// ErrWouldBlock is wrapped by the error of a call that was asked to wait by code
// which must not: an inline method, or the callback of [Stub.CallFunc].
var ErrWouldBlock = rpc.ErrWouldBlock

// Query asks a peer for a service and returns it as a struct of funcs. See
// [rpc.Query].
func Query[T any](ctx context.Context, p *Peer, qualified string) (*T, error) {
	return rpc.Query[T](ctx, p, qualified)
}

// Release gives the service of a client back. See [rpc.Release].
func Release(ctx context.Context, client any) error { return rpc.Release(ctx, client) }

// QueryClient returns the service of a [Client] as a struct of funcs, each of whose calls
// goes to one of the nodes that offer it. See [balance.Query].
func QueryClient[T any](ctx context.Context, c *Client) (*T, error) { return balance.Query[T](ctx, c) }

// QueryPool asks all peers of a pool for a service. See [rpc.QueryPool].
func QueryPool[T any](ctx context.Context, p *Pool, qualified string) (*PoolClient[T], error) {
	return rpc.QueryPool[T](ctx, p, qualified)
}

// Errorf returns an error with a code and a formatted message. What %w wraps
// stays in this process, except for its text.
func Errorf(code Code, format string, args ...any) *Error { return rpc.Errorf(code, format, args...) }

// CodeOf returns the code of an error, [Unknown] for one without a code, and 0
// for nil.
func CodeOf(err error) Code { return rpc.CodeOf(err) }

// SubscribeInline has a handler of events of a peer run on the goroutine that reads from
// it. See [rpc.SubscribeInline].
func SubscribeInline() SubscribeOption { return rpc.SubscribeInline() }

// SubscribeBuffer sets how many events of a peer may wait for a handler, and what becomes
// of others. See [rpc.SubscribeBuffer].
func SubscribeBuffer(n int, whenFull pubsub.Policy) SubscribeOption {
	return rpc.SubscribeBuffer(n, whenFull)
}

// PeerFrom returns the peer whose request is being served under ctx, or nil.
func PeerFrom(ctx context.Context) *Peer { return rpc.PeerFrom(ctx) }

// Property is a value of a service that peers read and write. See [rpc.Property].
type Property[T any] = rpc.Property[T]

// Use adds middleware for the requests of a service, inside of that of [Node.Use].
func Use(m ...Middleware) ExposeOption { return rpc.Use(m...) }

// Observe returns middleware that tells when requests begin and how they end, for
// metrics and traces. See [rpc.Observe].
func Observe(
	start func(ctx context.Context, r *Request) context.Context,
	end func(ctx context.Context, r *Request, took time.Duration, err error),
) Middleware {
	return rpc.Observe(start, end)
}

// UseOn adds middleware for a Go method, or a field that is a property, inside of that
// of the service.
func UseOn(goName string, m ...Middleware) ExposeOption { return rpc.UseOn(goName, m...) }

// WithHeader returns a context whose calls carry a header. See [rpc.WithHeader].
func WithHeader(ctx context.Context, name, value string) context.Context {
	return rpc.WithHeader(ctx, name, value)
}

// HeaderFrom returns the headers of the request that is being served under ctx.
func HeaderFrom(ctx context.Context) Header { return rpc.HeaderFrom(ctx) }

// SetHeader adds a header to the answer of the request that is being served under ctx.
// See [rpc.SetHeader].
func SetHeader(ctx context.Context, name, value string) error { return rpc.SetHeader(ctx, name, value) }

// WithAnswerHeader returns a context whose next call stores the headers of the answer
// in h.
func WithAnswerHeader(ctx context.Context, h *Header) context.Context {
	return rpc.WithAnswerHeader(ctx, h)
}

// WithUser returns a context that carries who the caller is. See [rpc.WithUser].
func WithUser(ctx context.Context, user any) context.Context { return rpc.WithUser(ctx, user) }

// Idempotent returns a context for calls that may be served twice without harm: those
// that are lost with their connection are made again. See [rpc.Idempotent].
func Idempotent(ctx context.Context) context.Context { return rpc.Idempotent(ctx) }

// RetryUnsent returns a context for calls that are made again if they were surely not
// served. See [rpc.RetryUnsent].
func RetryUnsent(ctx context.Context) context.Context { return rpc.RetryUnsent(ctx) }

// WasSent tells from the error of a call whether its request may have reached the peer.
// See [rpc.WasSent].
func WasSent(err error) (sent, known bool) { return rpc.WasSent(err) }

// UserFrom returns who the caller of a request is, nil if nobody found out.
func UserFrom(ctx context.Context) any { return rpc.UserFrom(ctx) }

type nodeKey struct{}

// NodeFrom returns the node that serves a request under ctx, or nil.
func NodeFrom(ctx context.Context) *Node {
	n, _ := ctx.Value(nodeKey{}).(*Node)
	return n
}
