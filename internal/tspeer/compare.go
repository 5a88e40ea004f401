package tspeer

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
)

// Tolerance is a difference from the recordings that no TypeScript peer notices or acts on.
type Tolerance struct{ Name, Reason string }

// Tolerances returns the differences that are allowed between a message and the recorded one, with the reason. Everything else is compared by
// value: forms of numbers and the order of members do not matter, null and undefined differ.
func Tolerances() []Tolerance {
	return []Tolerance{
		{"definition-id", "each server mints its own; it must be a UUID and stay the same within a connection"},
		{"definition-parent", "a caller sets the parent of a result to the definition that it called"},
		{"metadata", "peers look up members by name and read readonly; types, arguments and members that the conversation does not use are not read"},
		{"peer-id", "each process has its own"},
		{"stream-id", "the writer chooses it; chunks must use the announced one"},
		{"stream-peer", "a reader of a result takes the connection, not the id in the reference"},
		{"stack", "stacks are for humans, and better not sent"},
		{"error-class", "an error may travel as plain Error: its name is sent beside and set on arrival"},
		{"error-form", "extensions 110 and 126 arrive as an error with name, message and code alike"},
		{"error-fields", "additional fields of an error are set on it and read by nobody"},
		{"refusal-text", "only the words 'Definition ... not found' and 'Service ... not found' are acted on"},
		{"refusal-code", "a request that the original calls malformed (400) may also be called unknown (404)"},
		{"event-answer", "an event's answer is only waited for: null and undefined are alike"},
		{"bad-request-answer", "the original drops what it cannot decode; an error spares the sender its timeout"},
		{"order", "requests run concurrently: answers come in any order"},
		{"live", "whether an argument stream is live is the writer's choice"},
		{"abrupt-end", "a client may be cut off: the original notices a lost connection like a closed one"},
		{"chunking", "a stream of bytes may be cut elsewhere by its writer"},
	}
}

// Diff compares two values in the neutral form by value. It returns nil if they are equal, else an error that says where they differ. NaN
// equals itself, -0 equals 0, and the order of an object's members does not matter.
func Diff(got, want any) error {
	return (&trial{exact: true}).diff("", got, want)
}

// judge holds what one connection has taught about the other side's ids.
type judge struct {
	ids     map[string]string // recorded definition or peer id -> actual
	streams map[uint32]uint32 // recorded stream id of the other side -> actual
	used    map[string]map[string]bool
	allowed map[string]int // names of tolerances used
}

// newJudge returns a judge for a conversation: used tells which members of which recorded definition it uses.
func newJudge(msgs []Message, allowed map[string]int) *judge {
	j := &judge{ids: map[string]string{}, streams: map[uint32]uint32{}, used: map[string]map[string]bool{}, allowed: allowed}
	for _, m := range msgs {
		if p := m.Packet; p != nil && p.isRequest() && p.Type != TypeTask {
			if j.used[p.word(0)] == nil {
				j.used[p.word(0)] = map[string]bool{}
			}
			j.used[p.word(0)][p.word(1)] = true
		}
	}
	return j
}

// actual returns s with every recorded id in it replaced by the actual one.
func (j *judge) actual(s string) string {
	if id, ok := j.ids[s]; ok {
		return id
	}
	for from, to := range j.ids {
		if from != to && len(s) > len(from) {
			s = strings.ReplaceAll(s, from, to)
		}
	}
	return s
}

// rewritten returns a copy of the recorded packet with actual ids in its payload.
func (j *judge) rewritten(p *Packet) *Packet {
	q := *p
	q.Payload = mapValue(p.Payload, j.actual)
	return &q
}

// try compares got with want. If the error is nil, the trial can be committed.
func (j *judge) try(got, want any) (*trial, error) {
	t := &trial{judge: j, ids: map[string]string{}, streams: map[uint32]uint32{}}
	return t, t.diff("payload", got, want)
}

// trial is one comparison. What it learns takes effect when it is committed.
type trial struct {
	judge   *judge
	exact   bool // no tolerances, no judge
	ids     map[string]string
	streams map[uint32]uint32
	allowed []string
}

func (t *trial) commit() {
	maps.Copy(t.judge.ids, t.ids)
	maps.Copy(t.judge.streams, t.streams)
	for _, name := range t.allowed {
		t.judge.allow(name)
	}
}

func (j *judge) allow(name string) {
	if !slices.ContainsFunc(Tolerances(), func(t Tolerance) bool { return t.Name == name }) {
		panic("BUG: no tolerance " + name)
	}
	j.allowed[name]++
}

func (t *trial) allow(name string) { t.allowed = append(t.allowed, name) }

func differ(path string, got, want any) error {
	return fmt.Errorf("%s = %s, want %s", path, show(got), show(want))
}

func (t *trial) diff(path string, got, want any) error {
	switch want := want.(type) {
	case string:
		return t.diffString(path, got, want)
	case float64:
		if g, ok := got.(float64); ok && (g == want || math.IsNaN(g) && math.IsNaN(want)) {
			return nil
		}
	case []byte:
		if g, ok := got.([]byte); ok && bytes.Equal(g, want) {
			return nil
		}
	case []any:
		if g, ok := got.([]any); ok {
			return t.diffList(path, g, want)
		}
	case Set:
		if g, ok := got.(Set); ok {
			return t.diffList(path, g, want)
		}
	case Map:
		if g, ok := got.(Map); ok {
			return t.diffList(path, flat(g), flat(want))
		}
	case Object:
		if g, ok := got.(Object); ok {
			return t.diffObject(path, g, want)
		}
	case StreamRef:
		if g, ok := got.(StreamRef); ok {
			return t.diffStreamRef(path, g, want)
		}
	case *Definition:
		if g, ok := got.(*Definition); ok {
			return t.diffDefinition(path, g, want)
		}
	case *Error, *TitanError:
		return t.diffError(path, got, want)
	case cut, unknownExt, unsupported:
	case Reference:
		if !t.exact {
			want.DefID = t.judge.actual(want.DefID)
		}
		return t.diffComparable(path, got, want)
	default: // nil, bool, Undefined, BigInt, Date, RegExp, Long
		return t.diffComparable(path, got, want)
	}
	return differ(path, got, want)
}

func (t *trial) diffComparable(path string, got, want any) error {
	switch got.(type) {
	case []byte, []any, Set, Map, Object: // not comparable
	default:
		if got == want {
			return nil
		}
	}
	return differ(path, got, want)
}

func flat(m Map) []any {
	out := make([]any, 0, 2*len(m))
	for _, p := range m {
		out = append(out, p.Key, p.Value)
	}
	return out
}

func (t *trial) diffString(path string, got any, want string) error {
	g, ok := got.(string)
	if ok && g == want {
		return nil
	}
	if ok && !t.exact && g == t.judge.actual(want) {
		t.allow("peer-id")
		return nil
	}
	return differ(path, got, want)
}

func (t *trial) diffList(path string, got, want []any) error {
	if len(got) != len(want) {
		return fmt.Errorf("%s has %d elements, want %d: %s, want %s", path, len(got), len(want), show(got), show(want))
	}
	for i := range got {
		if err := t.diff(path+fmt.Sprintf("[%d]", i), got[i], want[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) diffObject(path string, got, want Object) error {
	if _, ok := want.Get("methods"); ok && !t.exact && metaProblem(want) == "" {
		return t.diffMeta(path, got, want, nil)
	}
	have := make(map[string]any, len(got))
	for _, m := range got {
		have[m.Key] = m.Value
	}
	for _, m := range want {
		v, ok := have[m.Key]
		if !ok {
			return fmt.Errorf("%s has no member %s, want %s", path, m.Key, show(want))
		}
		if err := t.diff(path+"."+m.Key, v, m.Value); err != nil {
			return err
		}
	}
	if len(got) != len(want) {
		return differ(path, got, want)
	}
	return nil
}

func (t *trial) diffStreamRef(path string, got, want StreamRef) error {
	if t.exact {
		return t.diffComparable(path, got, want)
	}
	if got.Writable != want.Writable || got.Live != want.Live {
		return differ(path, got, want)
	}
	if got.PeerID != want.PeerID {
		t.allow("stream-peer")
	}
	if got.StreamID != want.StreamID {
		t.allow("stream-id")
	}
	if act, ok := t.judge.streams[want.StreamID]; ok && act != got.StreamID {
		return differ(path, got, want)
	}
	for rec, act := range t.judge.streams {
		if act == got.StreamID && rec != want.StreamID {
			return fmt.Errorf("%s has stream id %d, which is another stream's", path, act)
		}
	}
	t.streams[want.StreamID] = got.StreamID
	return nil
}

func (t *trial) diffDefinition(path string, got, want *Definition) error {
	if t.exact {
		for _, f := range [][2]any{{got.ID, want.ID}, {got.ParentID, want.ParentID}, {got.PeerID, want.PeerID}, {got.Meta, want.Meta}} {
			if err := t.diff(path, f[0], f[1]); err != nil {
				return err
			}
		}
		return nil
	}
	if err := t.bind(path+".id", got.ID, want.ID); err != nil {
		return err
	}
	if parent := t.judge.actual(want.ParentID); got.ParentID != parent {
		if _, known := t.judge.ids[want.ParentID]; known || want.ParentID == "" {
			return differ(path+".parentId", got.ParentID, parent)
		}
		t.allow("definition-parent")
	}
	if peer := t.judge.actual(want.PeerID); got.PeerID != peer {
		return differ(path+".peerId", got.PeerID, peer)
	}
	used := t.judge.used[want.ID]
	if used == nil {
		used = map[string]bool{}
	}
	return t.diffMeta(path+".meta", got.Meta, want.Meta, used)
}

// bind learns that the recorded definition id is called got here.
func (t *trial) bind(path, got, recorded string) error {
	if act, ok := t.judge.ids[recorded]; ok {
		if act != got {
			return fmt.Errorf("%s = %s, want %s as before", path, got, act)
		}
		return nil
	}
	if !uuid.MatchString(got) {
		return fmt.Errorf("%s = %q, want a UUID: the current server accepts no other", path, got)
	}
	for rec, act := range t.judge.ids {
		if act == got && rec != recorded {
			return fmt.Errorf("%s = %s, which is already the id of another definition", path, got)
		}
	}
	if got != recorded {
		t.allow("definition-id")
	}
	t.ids[recorded] = got
	return nil
}

// diffMeta compares the metadata of a service. used names the members that must be there; nil means all.
func (t *trial) diffMeta(path string, got, want Object, used map[string]bool) error {
	if problem := metaProblem(got); problem != "" {
		return fmt.Errorf("%s: %s", path, problem)
	}
	if Diff(got, want) == nil {
		return nil
	}
	t.allow("metadata")
	for _, key := range []string{"name", "version"} {
		if got.text(key) != want.text(key) {
			return differ(path+"."+key, got.text(key), want.text(key))
		}
	}
	for _, kind := range []string{"methods", "properties"} {
		have := got.object(kind)
		for _, m := range want.object(kind) {
			v, ok := have.Get(m.Key)
			if !ok && (used == nil || used[m.Key]) {
				return fmt.Errorf("%s.%s has no %s", path, kind, m.Key)
			}
			if !ok || kind == "methods" {
				continue
			}
			g, _ := v.(Object).Get("readonly")
			w, _ := m.Value.(Object).Get("readonly")
			if g != w {
				return differ(path+"."+kind+"."+m.Key+".readonly", g, w)
			}
		}
	}
	return nil
}

// diffError compares an error. A recorded 126 is an error of the application, whose parts all matter; a 110 is a refusal of the library.
func (t *trial) diffError(path string, got, want any) error {
	if t.exact {
		return diffErrorExactly(path, got, want)
	}
	switch want := want.(type) {
	case *TitanError:
		return t.diffRefusal(path, got, want)
	case *Error:
		return t.diffApplicationError(path, got, want)
	}
	return differ(path, got, want)
}

func diffErrorExactly(path string, got, want any) error {
	parts := func(v any) []any {
		switch e := v.(type) {
		case *Error:
			return []any{"126", e.Ctor, e.Name, e.Stack, e.Message, e.Fields}
		case *TitanError:
			return []any{"110", e.Name, e.Code, e.Message, e.Details, e.Context, e.Timestamp, e.RequestID, e.CorrelationID, e.SpanID, e.TraceID, e.Stack, e.Cause, e.Extras}
		}
		return nil
	}
	if Diff(parts(got), parts(want)) != nil {
		return differ(path, got, want)
	}
	return nil
}

// findable matches the refusals that make the browser client refresh a stale definition.
var findable = []*regexp.Regexp{regexp.MustCompile(`(?s)Definition.*not found`), regexp.MustCompile(`(?s)Service.*not found`)}

func (t *trial) diffRefusal(path string, got any, want *TitanError) error {
	code, message, ok := refusal(got)
	if !ok {
		return differ(path, got, want)
	}
	if _, is126 := got.(*Error); is126 {
		t.allow("error-form")
	}
	if code != want.Code {
		if want.Code != 400 || code != 404 {
			return differ(path+".code", code, want.Code)
		}
		t.allow("refusal-code")
	}
	for _, re := range findable {
		if re.MatchString(want.Message) && !re.MatchString(message) {
			return fmt.Errorf("%s.message = %q, want one that matches %s", path, message, re)
		}
	}
	if message == "" {
		return fmt.Errorf("%s has no message", path)
	}
	if message != t.judge.actual(want.Message) {
		t.allow("refusal-text")
	}
	return nil
}

// refusal returns the numeric code and the message of an error of either form.
func refusal(v any) (code float64, message string, ok bool) {
	switch e := v.(type) {
	case *TitanError:
		return e.Code, e.Message, true
	case *Error:
		c, _ := e.Fields.Get("code")
		code, ok = c.(float64)
		return code, e.Message, ok
	}
	return 0, "", false
}

func (t *trial) diffApplicationError(path string, got any, want *Error) error {
	g, ok := got.(*Error)
	if titan, is110 := got.(*TitanError); is110 {
		t.allow("error-form")
		g, ok = &Error{Ctor: "Error", Name: titan.Name, Message: titan.Message, Fields: Object{{"code", titan.Code}, {"details", titan.Details}}}, true
		g.Stack = Undefined{}
	}
	if !ok {
		return differ(path, got, want)
	}
	if g.Ctor != want.Ctor {
		if g.Ctor != "Error" {
			return differ(path+" class", g.Ctor, want.Ctor)
		}
		t.allow("error-class")
	}
	if g.Stack != want.Stack {
		t.allow("stack")
	}
	if err := t.diffString(path+".name", g.Name, want.Name); err != nil {
		return err
	}
	if err := t.diffString(path+".message", g.Message, want.Message); err != nil {
		return err
	}
	for _, m := range want.Fields {
		v, ok := g.Fields.Get(m.Key)
		if !ok {
			return fmt.Errorf("%s has no field %s, want %s", path, m.Key, show(want))
		}
		if err := t.diff(path+"."+m.Key, v, m.Value); err != nil {
			return err
		}
	}
	if len(g.Fields) != len(want.Fields) {
		t.allow("error-fields")
	}
	return nil
}
