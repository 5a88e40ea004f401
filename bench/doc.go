// Package bench measures whole workloads: a client in this process against a
// server, as a rule in a process of its own.
//
// A run is a closed loop by default: each of the calls in flight starts the next
// one when its answer is there. With a rate it is an open loop: calls start on
// schedule whatever the answers do, and latency counts from the intended start,
// so that a stall is not hidden by the calls that were not made meanwhile. The
// warm-up is not counted, and a single failed call fails the run.
package bench
