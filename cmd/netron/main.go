// Command netron shows, serves, calls and measures Netron services.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/discover"
)

// Exit codes.
const (
	exitOK          = 0
	exitUsage       = 1 // the command line makes no sense
	exitRemote      = 2 // the service returned an error, or does not have the method; or Redis refuses
	exitGoal        = 3 // a benchmark missed the promised figure
	exitUnavailable = 4 // the peer, or Redis, cannot be reached
	exitTimeout     = 5 // no answer in time
)

// env is what a command may use of the process.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// command is one command of the tool.
type command struct {
	name, args, about string
	run               func(ctx context.Context, e *env, args []string) error
}

func commands() []command {
	return []command{
		{"demo", "", "show what the library does, in one process", runDemo},
		{"serve", "--demo | --echo", "run the reference service, or a plain WebSocket echo server", runServe},
		{"call", "URL SERVICE METHOD [ARG...]", "call a method; arguments are JSON, or - and @FILE for streams", runCall},
		{"sub", "URL PATTERN...", "print the events of a peer, as JSON", runSub},
		{"emit", "URL NAME [ARG...]", "send an event to a peer; arguments are JSON", runEmit},
		{"nodes", "[--redis URL]", "print the nodes that are registered in Redis", runNodes},
		{"bench", "[rpc | events | ...]", "measure; without a workload, all of them in a table", runBench},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

// run runs the command that the arguments name and returns the exit code.
func run(ctx context.Context, e *env, args []string) int {
	if len(args) == 0 {
		usage(e.stderr)
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "--help":
		usage(e.stdout)
		return exitOK
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, e, args[1:])
		if err == nil || errors.Is(err, pflag.ErrHelp) {
			return exitOK
		}
		fmt.Fprintf(e.stderr, "netron %s: %v\n", c.name, err)
		return exitCode(err)
	}
	fmt.Fprintf(e.stderr, "netron: unknown command %q\n", args[0])
	usage(e.stderr)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: netron COMMAND [flags] [arguments]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-38s %s\n", c.name+" "+c.args, c.about)
	}
	fmt.Fprint(w, "\nnetron COMMAND --help lists the flags of a command.\n")
}

// usageError is a command line that makes no sense.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// goalError is a benchmark that missed a promised figure.
type goalError struct{ msg string }

func (e *goalError) Error() string { return e.msg }

// exitCode returns the exit code for an error of a command.
func exitCode(err error) int {
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*goalError](err); ok {
		return exitGoal
	}
	if e, ok := errors.AsType[*discover.Error](err); ok {
		return redisExitCode(e.Code)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitTimeout
	}
	if e, ok := errors.AsType[*netron.Error](err); ok && (e.Remote() || e.Code != netron.Unavailable) {
		return exitRemote
	}
	return exitUnavailable
}

// redisExitCode returns the exit code for an error about Redis, which is a peer that cannot
// be reached as long as it has refused nothing.
func redisExitCode(code discover.Code) int {
	switch code {
	case netron.InvalidArgument:
		return exitUsage
	case netron.Unauthenticated, netron.PermissionDenied, netron.FailedPrecondition:
		return exitRemote
	}
	return exitUnavailable
}

// newFlags returns the flags of a command.
func newFlags(e *env, name, args string) *pflag.FlagSet {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SetOutput(e.stdout)
	flags.Usage = func() {
		fmt.Fprintf(e.stdout, "usage: netron %s %s\n\n%s", name, args, flags.FlagUsages())
	}
	return flags
}

// parse parses the flags of a command.
func parse(flags *pflag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		return &usageError{err.Error()}
	}
	return nil
}
