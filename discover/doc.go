// Package discover keeps track of which nodes there are, what services they offer, and
// where they are.
//
//	reg, err := discover.New(discover.Config{URL: "redis://redis:6379"})
//	...
//	defer reg.Close(ctx) // the others hear of it at once
//
//	// A server says that it is there.
//	err = reg.Register(ctx, discover.Node{
//		ID: node.ID(), Address: "10.0.0.7:8080",
//		Services: []discover.Service{{Name: "market", Version: "1.2.0"}},
//	})
//	err = reg.SetServices(ctx, services...) // whenever they change
//
//	// A client asks who offers a service, as often as it likes.
//	for _, n := range reg.Lookup("market@^1") {
//		fmt.Println(n.URL())
//	}
//	for e, err := range reg.Watch(ctx) { // what there is, then what changes
//		...
//	}
//
// A [Registry] is a view of all nodes in the memory of this process, which is kept current,
// and the registration of at most one node of one's own. [New] has the records in Redis,
// with the keys of TypeScript peers of version 0.6: they see our nodes, and we see theirs.
// [NewMemory] has them in this process, for tests and for programs that are one process;
// [NewStatic] is a fixed list. All behave alike.
//
// # What the view promises
//
// [Registry.Lookup] and [Registry.Find] read the view, and never wait. The view follows
// Redis within milliseconds, since Redis tells what has changed of that which was read.
// Announcements of others, and a reading of everything now and then, make up for what that
// misses; neither announcements nor clocks of others are believed.
//
// A node is there while its heartbeat is in Redis: it has a life of Config.TTL, and is
// renewed every Config.Heartbeat. When it is missing the node is suspect: it comes last
// where nodes are listed, and is gone when Config.Grace has passed too, or at once if it
// had said that it leaves. So the view has a node that died for TTL and Grace at most.
//
// While Redis is away the view stays as it is, and [Registry.Age] tells how old it is; no
// time passes for the nodes in it. When Redis is back, also if it has lost everything, the
// nodes register again on their own, and those that do not are suspect for as long as they
// had left to live. A Redis that answers but takes no heartbeats, being out of memory or a
// replica, is asked for that before anybody is gone: all are suspect until it takes them
// again. At no time is everybody gone at once.
//
// A record that makes no sense is ignored and counted, see [Stats]. Nobody deletes that of
// another node. Whoever may write to Redis is trusted to be a node, and may be one of a
// large record: one node's is bounded by Config.MaxRecordBytes after it was read. Nodes
// that are not in the view are read apart, and fewer at a time when records are large.
//
// [Registry.Fresh] asks Redis first, for those who must not miss what was written before:
// after an answer to one small question all changes up to it are known. Calls at the same
// time share the question.
//
// # Two nodes with one id
//
// The process that registers last has the id, so that one which was restarted has it at
// once. The other one notices at its next heartbeat and says so: [ErrTaken], [IDTaken],
// Stats.Conflicts. It has the id back when the later one leaves.
//
// # Redis
//
// One connection for everything, made anew at most once a second for an address. The
// commands are HELLO, CLIENT TRACKING, EVAL, SCARD, SMEMBERS, SSCAN, HMGET, PTTL, EXISTS,
// PUBLISH, SUBSCRIBE and SETRANGE (of nothing), and those of the scripts: HGET, HSET, EXPIRE, PSETEX, SADD, DEL
// and SREM. Where CLIENT TRACKING is not to be had the registry does without: it reads what
// is announced, when heartbeats run out, and everything for each question of Fresh.
//
// Each heartbeat of each node is read by each registry: N nodes that watch each other cost
// about 2N²/Heartbeat commands per second. For more than a few hundred nodes Heartbeat and
// TTL should be longer.
package discover
