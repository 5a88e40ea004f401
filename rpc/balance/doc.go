// Package balance calls a service, not an address: it picks one of the instances that offer
// it, for each call.
//
// A [Client] stands for one service. A [Resolver] says which [Instance]s offer it; [Static] is
// the simplest. The client dials some of them when it is used first, follows those that come and
// go, and sends each call to one by a [Policy], by a key ([WithKey]), or to the same one as
// before ([Sticky]). [Query] returns the service as a struct of funcs, as rpc.Query does for one
// peer; [Client.Stub] and [Client.Call] are its untyped forms.
//
// # Failures
//
// A call that nobody has served goes to another instance at once: one that was not sent, or that an
// instance refused which shuts down, has too much to do or does not have the service any more: then it
// is asked anew for what it has. One that was lost with its connection is
// made again only if its context is one of rpc.Idempotent, a few times, and within a budget for all
// calls. Both end with the context of the call. A call that was given streams is made again only
// while none of them has been used.
//
// If no instance is left that could be asked, calls fail with an error of code rpc.Unavailable, and
// those under rpc.RetryUnsent or rpc.Idempotent wait for one until their deadline. With
// Config.WaitReady all do, as they do while a [Learner] has not been told of any instances.
//
// An instance that does not have the service any more gets no calls, and is asked for it once a second.
// One that only fails gets no calls for a while ([Config].EjectAfter). One that cannot be
// connected to is dialled again after random pauses that grow, by one attempt at a time.
//
// # Lifetime
//
// An instance that left gets no new calls; its connection is closed when its calls have
// been answered and their streams have ended. Services that its methods returned end with it.
// [Client.Close] ends everything.
package balance
