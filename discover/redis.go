package discover

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/internal/code"
)

// redisStore has the records in Redis (protocol section 11). It reads all of them over one
// connection, which Redis tells what of it changes. That comes in order: once Redis has
// answered a question, everything that changed before is marked.
type redisStore struct {
	cfg     *Config
	options rueidis.ClientOption
	keys    keys

	base   context.Context    //nolint:containedctx // the life of connections, which the client makes on its own
	cancel context.CancelFunc // ends base
	marks  *marks             // set by run before anything else

	tracks atomic.Bool // Redis tells what changes
	client atomic.Pointer[rueidis.Client]
	tried  chan struct{} // closed after the first attempt to connect
	fails  atomic.Int64  // questions in a row without an answer
	renew  chan struct{} // has one element when the next address is to be tried

	mu     sync.Mutex
	err    error                // why there is no client; guarded by mu
	dialed map[string]time.Time // the next time that an address may be dialled; guarded by mu
}

// keys are the names of what is in Redis.
type keys struct {
	node, heartbeat, index, channel string
	probe                           string // which there never is
}

// triesPerAddress is how many questions may go unanswered before another address is tried.
const triesPerAddress = 3

// The scripts have the keys hash, heartbeat and index.
var (
	// Arguments: id, address, services, timestamp, seconds, milliseconds, instance, whether
	// to take the id from others, and further fields with their values. The first six are
	// those of TypeScript peers (protocol section 11.2).
	beatScript = rueidis.NewLuaScriptNoSha(`local holder = redis.call('HGET', KEYS[1], 'instance')
if not holder or holder == ARGV[7] or redis.call('EXISTS', KEYS[2]) == 0 then holder = '' end
if holder ~= '' and ARGV[8] ~= '1' then return {'held', holder} end
local state = redis.call('EXISTS', KEYS[1]) == 1 and 'kept' or 'new'
redis.call('HSET', KEYS[1], 'address', ARGV[2], 'services', ARGV[3], 'timestamp', ARGV[4], unpack(ARGV, 9))
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('PSETEX', KEYS[2], ARGV[6], '1')
redis.call('SADD', KEYS[3], ARGV[1])
return {state, holder}`)

	// Arguments: id, instance.
	leaveScript = rueidis.NewLuaScriptNoSha(`local holder = redis.call('HGET', KEYS[1], 'instance')
if holder and holder ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
return 1`)

	// Argument: id.
	tidyScript = rueidis.NewLuaScriptNoSha(`if redis.call('EXISTS', KEYS[1], KEYS[2]) ~= 0 then return 0 end
return redis.call('SREM', KEYS[3], ARGV[1])`)
)

func newRedisStore(cfg *Config) (*redisStore, error) {
	options, err := cfg.options()
	if err != nil {
		return nil, err
	}
	p := cfg.prefix()
	s := &redisStore{
		cfg:    cfg,
		keys:   keys{node: p + ":nodes:", heartbeat: p + ":heartbeat:", index: p + ":index:nodes", channel: cfg.channel(), probe: p + ":probe"},
		tried:  make(chan struct{}),
		renew:  make(chan struct{}, 1),
		err:    errNotYet,
		dialed: make(map[string]time.Time),
	}
	s.base, s.cancel = context.WithCancel(context.Background())
	s.tracks.Store(true)
	dial := options.DialCtxFn
	if dial == nil {
		dial = dialTCP
	}
	given := options.InitAddress
	options.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		if t != nil && cfg.TLS == nil && slices.Contains(given, addr) { // others that Redis names may have no name but that of the URL
			t = t.Clone()
			t.ServerName = ""
		}
		return s.dial(ctx, addr, func(ctx context.Context) (net.Conn, error) { return dial(ctx, addr, d, t) })
	}
	options.OnInvalidations = s.invalidated
	s.options = options
	return s, nil
}

func dialTCP(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil || t == nil {
		return conn, err
	}
	if t.ServerName == "" {
		t = t.Clone()
		t.ServerName, _, _ = net.SplitHostPort(addr) // it was dialled
	}
	secure := tls.Client(conn, t)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secure, nil
}

// dial connects to an address, not more often than Config.RetryDelay says: the client
// itself would try again with each question. The connection is closed when base ends.
func (s *redisStore) dial(ctx context.Context, addr string, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.base, cancel)()
	for {
		wait := s.mayDial(addr)
		if wait <= 0 {
			break
		}
		if !sleep(ctx, wait) {
			return nil, ctx.Err()
		}
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	s.marks.everything() // nobody tells the new connection what the old one has read
	return &boundConn{Conn: conn, stop: context.AfterFunc(s.base, func() { conn.Close() })}, nil
}

// mayDial returns how long it takes until an address may be dialled, 0 if that is now: then
// whoever asks must dial it.
func (s *redisStore) mayDial(addr string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if wait := s.dialed[addr].Sub(now); wait > 0 {
		return wait
	}
	s.dialed[addr] = now.Add(s.cfg.retryDelay())
	return 0
}

// boundConn is closed with what it is bound to.
type boundConn struct {
	net.Conn
	stop func() bool // unbinds it
}

// Write writes. Redis may have refused our certificate after the handshake: then the error
// is what it says, and not that it has closed the connection.
func (c *boundConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if secure, ok := c.Conn.(*tls.Conn); ok && err != nil {
		if secure.SetReadDeadline(time.Now().Add(time.Second)) == nil { // it has come already, or never will
			if _, why := secure.Read(make([]byte, 1)); isAlert(why) {
				err = why
			}
		}
	}
	return n, err
}

// Close closes the connection.
func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// invalidated is told keys that have changed since they were read, nil for all.
func (s *redisStore) invalidated(keys []rueidis.RedisMessage) {
	if keys == nil {
		s.marks.everything()
	}
	for _, k := range keys {
		key, err := k.ToString()
		if err != nil {
			continue
		}
		if key == s.keys.index {
			s.marks.index()
		} else if id, ok := strings.CutPrefix(key, s.keys.node); ok {
			s.marks.node(id, false)
		} else if id, ok := strings.CutPrefix(key, s.keys.heartbeat); ok {
			s.marks.node(id, false)
		}
	}
}

// run connects, and connects anew to the next address when Redis does not answer.
func (s *redisStore) run(ctx context.Context, m *marks, hear func(string), deaf func(error)) {
	s.marks = m
	addrs := s.options.InitAddress
	for attempt := 0; ctx.Err() == nil; attempt++ {
		o := s.options
		if o.Sentinel.MasterSet == "" {
			o.InitAddress = []string{addrs[attempt%len(addrs)]} // of a cluster it gives us the others
		}
		client, err := s.connect(ctx, o)
		if err != nil {
			s.lost(unanswered(ctx, explain("connect to Redis", err)))
			if !sleep(ctx, s.cfg.retryDelay()) {
				return
			}
			continue
		}
		tells := s.tracks.Load()
		s.client.Store(&client)
		s.fails.Store(0)
		s.attempted()
		m.everything()
		s.listen(ctx, client, len(o.InitAddress) < len(addrs), tells, hear, deaf)
		if ctx.Err() != nil {
			return // close gives the client up
		}
		s.lost(errors.New("a new connection is made"))
		s.client.Store(nil)
		client.Close()
	}
}

// connect returns a client that is connected.
func (s *redisStore) connect(ctx context.Context, o rueidis.ClientOption) (rueidis.Client, error) {
	o.ForceSingleClient = o.Sentinel.MasterSet == ""
	client, err := s.newClient(o)
	if err != nil || !o.ForceSingleClient || !isCluster(ctx, client) {
		return client, err
	}
	client.Close()
	if !hasTag(s.cfg.prefix()) {
		return nil, errorf(code.FailedPrecondition, "the Redis is a cluster, for which the prefix %s needs a hash tag, as in {netron}:discovery", s.cfg.prefix())
	}
	s.mu.Lock()
	clear(s.dialed) // this was no failure
	s.mu.Unlock()
	o.ForceSingleClient = false
	return s.newClient(o)
}

func (s *redisStore) newClient(o rueidis.ClientOption) (rueidis.Client, error) {
	o.DisableCache = !s.tracks.Load()
	client, err := rueidis.NewClient(o)
	if err != nil && client != nil {
		client.Close()
	}
	if errors.Is(err, rueidis.ErrNoCache) && !o.DisableCache {
		s.tracks.Store(false)
		return s.newClient(o)
	}
	return client, err
}

// isCluster asks Redis what it is. The client could find out by itself, but would go on
// asking for the nodes of a cluster that is none.
func isCluster(ctx context.Context, client rueidis.Client) bool {
	info, err := client.Do(ctx, client.B().Arbitrary("HELLO").Build()).AsMap()
	if err != nil {
		return false
	}
	mode := info["mode"]
	name, err := mode.ToString()
	return err == nil && name == "cluster"
}

// hasTag reports whether all keys with the prefix are in one slot of a cluster.
func hasTag(prefix string) bool {
	_, tag, ok := strings.Cut(prefix, "{")
	return ok && strings.Index(tag, "}") > 0
}

// listen passes on announcements until ctx ends, or there is to be a new client: of another
// address, if there is one, or that is not told what changes.
func (s *redisStore) listen(ctx context.Context, client rueidis.Client, mayRenew, tells bool, hear func(string), deaf func(error)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !s.cfg.NoEvents {
		hooked := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { deaf(nil) })
		wg.Go(func() {
			for ctx.Err() == nil {
				err := client.Receive(hooked, s.home(client.B().Subscribe().Channel(s.keys.channel).Build()), func(m rueidis.PubSubMessage) { hear(m.Message) })
				if ctx.Err() == nil && err != nil {
					deaf(err)
				}
				sleep(ctx, s.cfg.retryDelay())
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.renew:
			if mayRenew && s.fails.Load() >= triesPerAddress || tells && !s.tracks.Load() {
				return
			}
		}
	}
}

// lost notes why there is no client.
func (s *redisStore) lost(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	s.attempted()
}

func (s *redisStore) attempted() {
	select {
	case <-s.tried:
	default:
		close(s.tried)
	}
}

// get returns the client, or why there is none. It waits for the first attempt.
func (s *redisStore) get(ctx context.Context) (rueidis.Client, error) {
	select {
	case <-s.tried:
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), errNotYet)
	}
	if c := s.client.Load(); c != nil {
		return *c, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil, s.err
}

// settle looks at the outcome of a question, which it returns.
func (s *redisStore) settle(err error) error {
	_, isAnswer := rueidis.IsRedisErr(err)
	switch {
	case err == nil || isAnswer:
		s.fails.Store(0)
		return err
	case errors.Is(err, rueidis.ErrNoCache): // a new connection is not told what changes, as the old one was
		s.tracks.Store(false)
	case s.fails.Add(1) < triesPerAddress:
		return err
	}
	select {
	case s.renew <- struct{}{}:
	default:
	}
	return err
}

func (s *redisStore) keysOf(id string) []string {
	return []string{s.keys.node + id, s.keys.heartbeat + id, s.keys.index}
}

func (s *redisStore) beat(ctx context.Context, b *beat) (beaten, error) {
	client, err := s.get(ctx)
	if err != nil {
		return beaten{}, err
	}
	seconds, claim := (b.ttl+time.Second-1)/time.Second, "0"
	if b.claim {
		claim = "1"
	}
	f := &b.fields
	args := []string{
		b.id, f[fieldAddress], f[fieldServices], f[fieldTimestamp],
		strconv.FormatInt(int64(seconds), 10), strconv.FormatInt(b.ttl.Milliseconds(), 10), f[fieldInstance], claim,
	}
	for i := ownFields; i < fieldCount; i++ {
		args = append(args, fieldNames[i], f[i])
	}
	got, err := beatScript.Exec(ctx, client, s.keysOf(b.id), args).AsStrSlice()
	if s.settle(err) != nil {
		return beaten{}, err
	}
	if len(got) != 2 {
		return beaten{}, errors.New("the script has a strange result")
	}
	return beaten{isNew: got[0] == "new", isHeld: got[0] == "held", holder: got[1]}, nil
}

func (s *redisStore) leave(ctx context.Context, id, instance string) (left bool, err error) {
	client, err := s.get(ctx)
	if err != nil {
		return false, err
	}
	n, err := leaveScript.Exec(ctx, client, s.keysOf(id), []string{id, instance}).AsInt64()
	return n == 1, s.settle(err)
}

func (s *redisStore) tidy(ctx context.Context, ids []string) (removed int, err error) {
	client, err := s.get(ctx)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		n, err := tidyScript.Exec(ctx, client, s.keysOf(id), []string{id}).AsInt64()
		if s.settle(err) != nil {
			return removed, err
		}
		removed += int(n)
	}
	return removed, nil
}

func (s *redisStore) list(ctx context.Context, most int) (ids []string, whole bool, err error) {
	client, err := s.get(ctx)
	if err != nil {
		return nil, false, err
	}
	n, err := client.Do(ctx, client.B().Scard().Key(s.keys.index).Build()).AsInt64()
	if s.settle(err) != nil {
		return nil, false, err
	}
	if n <= int64(most) {
		ids, err := client.Do(ctx, client.B().Smembers().Key(s.keys.index).Build()).AsStrSlice()
		return ids, true, s.settle(err)
	}
	for cursor := uint64(0); len(ids) < most; {
		part, err := client.Do(ctx, client.B().Sscan().Key(s.keys.index).Cursor(cursor).Count(readAhead).Build()).AsScanEntry()
		if s.settle(err) != nil {
			return nil, false, err
		}
		ids = append(ids, part.Elements...)
		if cursor = part.Cursor; cursor == 0 {
			break
		}
	}
	return ids, false, nil
}

func (s *redisStore) read(ctx context.Context, ids []string) ([]reading, error) {
	client, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	commands := make(rueidis.Commands, 0, 2*len(ids))
	for _, id := range ids {
		commands = append(commands,
			client.B().Hmget().Key(s.keys.node+id).Field(fieldNames[:]...).Build(),
			client.B().Pttl().Key(s.keys.heartbeat+id).Build())
	}
	results := client.DoMulti(ctx, commands...)
	readings := make([]reading, len(ids))
	for i := range ids {
		if readings[i], err = s.parse(results[2*i], results[2*i+1]); s.settle(err) != nil {
			return nil, err
		}
	}
	return readings, nil
}

// parse makes a reading of two answers. A key of another type is no record.
func (s *redisStore) parse(record, ttl rueidis.RedisResult) (r reading, err error) {
	values, err := record.ToArray()
	if refused, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(refused.Error(), "WRONGTYPE") {
		err = nil
	}
	if err != nil {
		return r, err
	}
	for i := range min(len(values), fieldCount) {
		if values[i].IsNil() {
			continue
		}
		if r.fields[i], err = values[i].ToString(); err != nil {
			return r, err
		}
	}
	ms, err := ttl.AsInt64()
	switch {
	case err != nil:
		return r, err
	case ms >= 0:
		r.ttl = time.Duration(min(ms, maxTTL)+1) * time.Millisecond
	case ms == -1: // it is for ever, which it should not be
		r.ttl = s.cfg.ttl()
	}
	return r, nil
}

// maxTTL is the longest life of a heartbeat in milliseconds, for arithmetic.
const maxTTL = int64(365 * 24 * time.Hour / time.Millisecond)

func (s *redisStore) announce(ctx context.Context, a announcement) error {
	client, err := s.get(ctx)
	if err != nil {
		return err
	}
	message, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return s.settle(client.Do(ctx, s.home(client.B().Publish().Channel(s.keys.channel).Message(rueidis.BinaryString(message)).Build())).Error())
}

// home has a command without keys go where the keys are. In a cluster it would go
// anywhere otherwise, also to a server that is dead.
func (s *redisStore) home(c rueidis.Completed) rueidis.Completed { return c.SetSlot(s.keys.index) }

// takes asks for a change that changes nothing, which Redis refuses whenever it would
// refuse a heartbeat: out of memory, a replica and so on. That we may not do it says nothing.
func (s *redisStore) takes(ctx context.Context) (refusal, err error) {
	client, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	err = s.settle(client.Do(ctx, client.B().Setrange().Key(s.keys.probe).Offset(0).Value("").Build()).Error())
	refused, ok := rueidis.IsRedisErr(err)
	if !ok {
		return nil, err
	}
	word, _, _ := strings.Cut(refused.Error(), " ")
	if word == "NOPERM" || word == "ERR" {
		return nil, nil
	}
	return err, nil
}

func (s *redisStore) fence(ctx context.Context) error {
	client, err := s.get(ctx)
	if err != nil {
		return err
	}
	if err := client.Do(ctx, client.B().Exists().Key(s.keys.index).Build()).Error(); s.settle(err) != nil {
		return err
	}
	if !s.tracks.Load() {
		s.marks.everything()
	}
	return nil
}

func (s *redisStore) tells() bool { return s.tracks.Load() }

func (s *redisStore) close() {
	s.cancel()
	if c := s.client.Load(); c != nil {
		(*c).Close()
	}
}
