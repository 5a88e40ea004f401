package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// ErrNoRedis is the error of [StartRedis] on a machine without redis-server.
var ErrNoRedis = errors.New("there is no redis-server; install it (Debian, Ubuntu: apt-get install redis-server)")

const (
	// redisPatience is how long a redis-server may take to start.
	redisPatience = 20 * time.Second
	// redisTries is how many ports are tried: somebody else may take one in between.
	redisTries = 10
)

// Redis is a redis-server for a run: on the loopback interface, in a temporary directory,
// without persistence.
type Redis struct {
	cmd   *exec.Cmd
	addr  string
	dir   string
	ready chan struct{} // closed when it accepts connections
	done  chan struct{} // closed when the process has ended
	last  string        // what it said last; to be read after done
}

// StartRedis starts the redis-server that is in PATH, and returns when it accepts
// connections. [Redis.Stop] ends it. Without one the error is [ErrNoRedis].
func StartRedis(ctx context.Context) (*Redis, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, ErrNoRedis
	}
	for range redisTries {
		var r *Redis
		if r, err = startRedis(ctx, path); err == nil || ctx.Err() != nil {
			return r, err
		}
	}
	return nil, err
}

func startRedis(ctx context.Context, path string) (r *Redis, err error) {
	r = &Redis{ready: make(chan struct{}), done: make(chan struct{})}
	if r.addr, err = freeAddr(); err != nil {
		return nil, fmt.Errorf("bench: find a port for Redis: %w", err)
	}
	if r.dir, err = os.MkdirTemp("", "netron-bench-redis-"); err != nil {
		return nil, fmt.Errorf("bench: make a directory for Redis: %w", err)
	}
	host, port, _ := strings.Cut(r.addr, ":")
	r.cmd = exec.Command(path, "--bind", host, "--port", port, "--dir", r.dir, "--daemonize", "no",
		"--save", "", "--appendonly", "no", "--logfile", "", "--loglevel", "notice")
	bindToThis(r.cmd)
	started := make(chan error)
	go r.run(started)
	if err := <-started; err != nil {
		<-r.done
		return nil, errors.Join(fmt.Errorf("bench: start Redis: %w", err), os.Remove(r.dir))
	}
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	select {
	case <-r.ready:
		return r, nil
	case <-r.done:
		err = errors.New(r.last)
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.Stop()
	return nil, fmt.Errorf("bench: start Redis: %w", err)
}

// run starts the process, and ends with it.
func (r *Redis) run(started chan<- error) {
	defer close(r.done)
	runtime.LockOSThread() // for bindToThis, which means the thread that starts it
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	started <- err
	if err != nil {
		return
	}
	isReady := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		r.last = lines.Text()
		if !isReady && strings.Contains(r.last, "Ready to accept connections") {
			isReady = true
			close(r.ready)
		}
	}
	_, _ = io.Copy(io.Discard, out) // of a line that is too long
	_ = r.cmd.Wait()                // it was killed, or has said why it ended
}

// URL returns where the server is.
func (r *Redis) URL() string { return "redis://" + r.addr }

// Stop ends the server, and removes its directory.
func (r *Redis) Stop() {
	_ = r.cmd.Process.Kill() // it may have ended by itself
	<-r.done
	_ = os.RemoveAll(r.dir) // it has nothing of worth
}

// freeAddr returns an address of this machine where nobody listens.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
