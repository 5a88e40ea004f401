package stream

import "context"

// Options says how the arguments of a call are streamed.
type Options struct {
	// Live streams may be silent for long. The reader of others gives up when nothing came for
	// its stream time limit, 60 s unless configured. Results always are live.
	Live bool

	// ChunkSize is how many bytes of an [io.Reader] travel together at most; no more than a message
	// may have. Default 64 KiB, also if it is negative.
	ChunkSize int
}

type optionsKey struct{}

// With returns a context whose calls stream their arguments by these options.
func With(ctx context.Context, o Options) context.Context {
	return context.WithValue(ctx, optionsKey{}, o)
}

// OptionsFrom returns the options that a context carries.
func OptionsFrom(ctx context.Context) Options {
	o, _ := ctx.Value(optionsKey{}).(Options)
	return o
}

const defaultChunkSize = 64 << 10

func (o Options) chunkSize() int {
	if o.ChunkSize <= 0 {
		return defaultChunkSize
	}
	return o.ChunkSize
}
