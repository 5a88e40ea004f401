package tspeer

import "fmt"

// Rule names something that a TypeScript peer would not understand, or that would harm it.
type Rule string

// Rules of a packet, which [Decode] checks.
const (
	RuleShort     Rule = "packet shorter than header and payload"
	RuleSize      Rule = "packet over 16 MiB"
	RuleType      Rule = "packet type above 7"
	RuleEOSFlag   Rule = "flag bit 4 outside STREAM"
	RuleLiveFlag  Rule = "live bit outside STREAM"
	RuleErrorFlag Rule = "error bit on something other than a response"
	RuleImpulse   Rule = "one-way packet without impulse"
	RulePing06    Rule = "PING to a 0.6 peer"
	RuleClose06   Rule = "STREAM_CLOSE to a 0.6 peer"
	RuleTrailing  Rule = "trailing bytes"
)

// Rules of a value, which [Decode] and [DecodeValue] check.
const (
	RuleTruncated    Rule = "value ends early"
	RuleDepth        Rule = "nesting too deep"
	RuleC1           Rule = "byte c1"
	RuleMap32        Rule = "map32"
	RuleKey          Rule = "map key that is no string"
	RuleDuplicateKey Rule = "map key twice"
	RuleProto        Rule = "map key __proto__"
	RuleUTF8         Rule = "invalid UTF-8"
	RuleExtType      Rule = "extension without a decoder"
	RuleExtLength    Rule = "extension length does not match its content"
	RuleUndefined    Rule = "undefined with other data than one zero byte"
	RuleStreamRef    Rule = "malformed stream reference"
	RuleReference    Rule = "malformed reference"
	RuleDefinition   Rule = "malformed definition"
	RuleTitan        Rule = "malformed TitanError"
	RuleTitan06      Rule = "TitanError to a 0.6 peer"
	RuleLong         Rule = "malformed Long"
	RuleBigInt       Rule = "BigInt that is not decimal"
	RuleRegExp       Rule = "malformed RegExp"
	RuleDate         Rule = "date out of range"
	RuleErrorID      Rule = "Error id outside 1 to 7"
	RuleError        Rule = "malformed Error"
)

// Rules of a packet's place and meaning, which [Check] and the played peers check.
const (
	RulePayload     Rule = "request payload of the wrong shape"
	RuleChunk       Rule = "stream packet of the wrong shape"
	RuleText        Rule = "text frame after the handshake"
	RuleFirstByte   Rule = "first packet taken for text"
	RuleUpgrade     Rule = "malformed upgrade"
	RuleFrame       Rule = "malformed WebSocket frame"
	RuleHello       Rule = "malformed handshake message"
	RuleEarlyHello  Rule = "id frame too early for a Node client"
	RuleUnexpected  Rule = "message that the conversation does not have"
	RuleMismatch    Rule = "message differs from the recorded one"
	RuleMissing     Rule = "message of the conversation that did not come"
	RuleOrder       Rule = "messages in an order that loses data"
	RuleBarrier     Rule = "stream argument started before the peer can know it"
	RuleCloseFrame  Rule = "connection ended without a proper close frame"
	RuleEventAnswer Rule = "event answered with an error"
)

// Violation says which rule a peer broke, and how. It satisfies error.
type Violation struct { //nolint:errname // the word of the rules
	Rule   Rule
	Detail string
}

// Error implements error.
func (v *Violation) Error() string {
	if v.Detail == "" {
		return "tspeer: " + string(v.Rule)
	}
	return "tspeer: " + string(v.Rule) + ": " + v.Detail
}

// violation returns a *Violation with a formatted detail.
func violation(r Rule, format string, args ...any) *Violation {
	return &Violation{Rule: r, Detail: fmt.Sprintf(format, args...)}
}
