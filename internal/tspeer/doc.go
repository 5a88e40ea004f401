// Package tspeer plays the TypeScript peers of Netron against an implementation under test, and judges what comes back.
//
// It holds conversations that the original TypeScript clients had with the original server ([Load]). Each [Conversation] can be played in both
// roles: [Conversation.ReplayClient] is the recorded client and talks to a listener under test, [Conversation.ServeRecorded] is the recorded
// server and talks to a dialler under test. The recordings are of the current version only; [Replay06] and [Serve06] are small scripted
// peers of version 0.6.
//
// The package has its own decoder, [Decode], which accepts what every TypeScript decoder understands and names the rule that anything else
// breaks ([Violation]). It shares no code with the implementation, because it is the judge of it. Answers are compared with the recorded
// ones by meaning; whatever may differ stands, with the reason, in [Tolerances] and [Amendments].
//
// Nothing here is safe for concurrent use, except that different conversations may be played at the same time. Every function that
// takes a context returns only after the goroutines it started have ended, and leaves its connections closed.
package tspeer
