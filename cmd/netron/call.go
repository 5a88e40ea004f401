package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math"
	"math/big"
	"strings"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/discover"
)

// runCall calls one method and prints its result as JSON, or a stream as its items.
func runCall(ctx context.Context, e *env, args []string) error {
	flags := newFlags(e, "call", "[flags] URL SERVICE METHOD [ARG...]\n\nURL is that of a peer, ws:// or wss://, or of a Redis, redis:// or rediss://, in which the service is looked up.")
	timeout := flags.Duration("timeout", 5*time.Second, "time limit for connecting, and for the answer once streams have been sent")
	header := flags.StringArray("header", nil, "`NAME: VALUE` of a header of the upgrade request; may be repeated")
	task := flags.Bool("task", false, "run the task METHOD instead; SERVICE is left out")
	items := flags.Bool("items", false, "streams are JSON values, one a line: - and @FILE among the arguments, and results of bytes (base64)")
	quiet := flags.Bool("quiet", false, "show no progress of streams")
	flags.SetInterspersed(false) // so that -1 is an argument
	if err := parse(flags, args); err != nil {
		return err
	}
	rest := flags.Args()
	need := 3
	if *task {
		need = 2
	}
	if len(rest) < need {
		return usagef("want URL SERVICE METHOD [ARG...], got %d arguments", len(rest))
	}
	progress := newProgress(e, *quiet)
	values, closeFiles, err := parseCallArguments(rest[need:], e.stdin, *items, progress)
	if err != nil {
		return err
	}
	defer closeFiles()
	var opts []netron.DialOption
	for _, h := range *header {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return usagef("header %q has no colon", h)
		}
		opts = append(opts, netron.DialHeader(strings.TrimSpace(name), strings.TrimSpace(value)))
	}

	target := callTarget{url: rest[0], service: rest[1], method: rest[need-1], isTask: *task}
	node, err := netron.New(netron.Config{ConnectTimeout: *timeout, CallTimeout: *timeout, Discovery: target.discovery(opts)})
	if err != nil {
		return err
	}
	defer node.Close()
	var result any
	hangUp, err := target.call(ctx, node, opts, &result, values)
	progress.end()
	if err != nil {
		return describe(err)
	}
	if seq, ok := result.(iter.Seq2[any, error]); ok {
		err = printItems(e, seq, *items, progress)
	} else {
		err = printJSON(e.stdout, result)
	}
	progress.end()
	if err != nil {
		return describe(err)
	}
	return hangUp()
}

// callTarget is what is called.
type callTarget struct {
	url, service, method string // of a task service and method are its name
	isTask               bool
}

// discovery returns how the service is found if the URL is that of a Redis.
func (c *callTarget) discovery(opts []netron.DialOption) (d netron.DiscoveryConfig) {
	for _, scheme := range []string{"redis://", "rediss://", "unix://"} {
		if strings.HasPrefix(c.url, scheme) {
			quiet := slog.New(slog.DiscardHandler) // the error says it
			d = netron.DiscoveryConfig{Redis: &discover.Config{URL: c.url, Logger: quiet}, Dial: opts}
		}
	}
	return d
}

// call makes the call. hangUp ends the connection, when its streams have ended.
func (c *callTarget) call(ctx context.Context, node *netron.Node, opts []netron.DialOption, result *any, args []any) (hangUp func() error, err error) {
	if node.Discovery() != nil {
		if c.isTask {
			return nil, usagef("a task is run at a peer: want its URL, not that of a Redis")
		}
		client, err := node.Find(c.service)
		if err != nil {
			return nil, err
		}
		return client.Close, client.Call(ctx, c.method, result, args...)
	}
	peer, err := node.Dial(ctx, c.url, opts...)
	if err != nil {
		return nil, err
	}
	if c.isTask {
		return peer.Close, peer.RunTask(ctx, c.method, result, args...)
	}
	stub, err := peer.Service(ctx, c.service)
	if err != nil {
		return nil, err
	}
	return peer.Close, stub.Call(ctx, c.method, result, args...)
}

// printJSON prints a value as a line.
func printJSON(w io.Writer, v any) error {
	out, err := json.Marshal(toJSON(v))
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", out)
	return err
}

// describe adds the details and fields of a remote error to its text.
func describe(err error) error {
	e, ok := errors.AsType[*netron.Error](err)
	if !ok || (e.Details == nil && e.Fields == nil) {
		return err
	}
	more := map[string]any{}
	for name, v := range e.Fields {
		more[name] = toJSON(v)
	}
	if e.Details != nil {
		more["details"] = toJSON(e.Details)
	}
	text, marshalErr := json.Marshal(more)
	if marshalErr != nil {
		return err
	}
	return fmt.Errorf("%w %s", err, text)
}

// parseArguments reads arguments as JSON. Whole numbers stay whole, whatever
// their size.
func parseArguments(args []string) ([]any, error) {
	values := make([]any, len(args))
	for i, arg := range args {
		d := json.NewDecoder(strings.NewReader(arg))
		d.UseNumber()
		var v any
		err := d.Decode(&v)
		if err == nil && d.More() {
			err = fmt.Errorf("more than one value")
		}
		if err != nil {
			return nil, usagef("argument %d, %s: %v (arguments are JSON: a string needs its quotes, '\"text\"')", i+1, arg, err)
		}
		values[i] = fromJSON(v)
	}
	return values, nil
}

// fromJSON turns the numbers of a decoded JSON value into int64, *big.Int or
// float64.
func fromJSON(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if n, ok := new(big.Int).SetString(v.String(), 10); ok {
			return n
		}
		f, _ := v.Float64() // out of range gives an infinity, as in JavaScript
		return f
	case []any:
		for i := range v {
			v[i] = fromJSON(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = fromJSON(v[k])
		}
	}
	return v
}

// toJSON turns a decoded value into one that encoding/json prints: binary data as
// base64, a Map as pairs, a Set as a list, numbers that JSON does not have as
// text.
func toJSON(v any) any {
	switch v := v.(type) {
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	case []any:
		return toJSONList(v)
	case codec.Set:
		return toJSONList(v)
	case codec.Map:
		pairs := make([]any, len(v))
		for i, p := range v {
			pairs[i] = []any{toJSON(p.Key), toJSON(p.Value)}
		}
		return pairs
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, member := range v {
			m[k] = toJSON(member)
		}
		return m
	case codec.RegExp:
		return "/" + v.Source + "/" + v.Flags
	case codec.Raw:
		var inner any
		if v.Unmarshal(&inner) == nil {
			return toJSON(inner)
		}
		return base64.StdEncoding.EncodeToString(v)
	case error:
		return v.Error()
	}
	return v
}

func toJSONList(list []any) any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = toJSON(v)
	}
	return out
}
