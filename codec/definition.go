package codec

import (
	"math"
	"strconv"
)

// Definition tells a peer about a service (extension 109).
type Definition struct {
	ID       string
	ParentID string // of the service that returned this one; empty for named services
	PeerID   string // of the peer that owns it
	Meta     Meta
}

// Meta is the metadata of a service: a map with the members name, version,
// properties, methods and whatever else a peer adds.
//
// It is tolerant when decoded: a member that is not what it should be counts as
// absent.
type Meta struct {
	Name       string
	Version    string // empty: none
	Properties []Property
	Methods    []Method
	Extra      Fields // other members; undefined ones are [Undefined]
}

// Property is a property of a service.
type Property struct {
	Name     string
	Type     string // a name for readers, no peer interprets it
	Readonly bool
}

// Method is a method of a service.
type Method struct {
	Name      string
	Type      string // of the result: a name for readers, no peer interprets it
	Arguments []Argument
}

// Argument is an argument of a method.
type Argument struct {
	Type string // a name for readers, no peer interprets it

	// Indexed says that the argument has the form {index, type} of current peers
	// instead of the name alone.
	Indexed bool
	Index   int
}

func (f *Definition) append(dst []byte, depth int) ([]byte, error) {
	start := len(dst)
	dst = AppendString(extStart(dst), f.ID)
	dst = AppendString(dst, f.ParentID)
	dst = AppendString(dst, f.PeerID)
	dst, err := f.Meta.append(dst, depth+1)
	if err != nil {
		return dst, atName(err, "meta")
	}
	return extEnd(dst, start, extDefinition), nil
}

func (m *Meta) append(dst []byte, depth int) ([]byte, error) {
	dst, err := AppendMapHeader(dst, 4+len(m.Extra))
	if err != nil {
		return dst, err
	}
	dst = AppendString(AppendString(dst, "name"), m.Name)
	dst = AppendString(AppendString(dst, "version"), m.Version)
	if dst, err = AppendMapHeader(AppendString(dst, "properties"), len(m.Properties)); err != nil {
		return dst, err
	}
	for i := range m.Properties {
		p := &m.Properties[i]
		dst = append(AppendString(dst, p.Name), codeFixMap|2)
		dst = AppendString(AppendString(dst, "type"), p.Type)
		dst = AppendBool(AppendString(dst, "readonly"), p.Readonly)
	}
	if dst, err = AppendMapHeader(AppendString(dst, "methods"), len(m.Methods)); err != nil {
		return dst, err
	}
	for i := range m.Methods {
		dst = m.Methods[i].append(dst)
	}
	return m.Extra.appendMembers(dst, depth)
}

func (m *Method) append(dst []byte) []byte {
	dst = append(AppendString(dst, m.Name), codeFixMap|2)
	dst = AppendString(AppendString(dst, "type"), m.Type)
	dst = AppendArrayHeader(AppendString(dst, "arguments"), len(m.Arguments))
	for _, a := range m.Arguments {
		if !a.Indexed {
			dst = AppendString(dst, a.Type)
			continue
		}
		dst = append(dst, codeFixMap|2)
		dst = AppendInt(AppendString(dst, "index"), int64(a.Index))
		dst = AppendString(AppendString(dst, "type"), a.Type)
	}
	return dst
}

const (
	costDefinition = 176
	costProperty   = 40
	costMethod     = 56
	costArgument   = 32
)

func (d *Decoder) readDefinition() (*Definition, error) {
	outer, err := d.wantExt(extDefinition, "a definition")
	if err != nil {
		return nil, err
	}
	if err := d.spend(costDefinition); err != nil {
		return nil, err
	}
	f := &Definition{}
	if f.ID, err = d.String(); err != nil {
		return nil, atName(err, "id")
	}
	if f.ParentID, err = d.text(); err != nil {
		return nil, err
	}
	if f.PeerID, err = d.text(); err != nil {
		return nil, err
	}
	if f.Meta, err = d.readMeta(); err != nil {
		return nil, atName(err, "meta")
	}
	return f, d.leaveExt(outer)
}

func (d *Decoder) readMeta() (m Meta, err error) {
	c, err := d.enterMap()
	if err != nil {
		return m, err
	}
	for left := c.n; left > 0; left-- {
		name, err := d.key()
		if err != nil {
			return m, err
		}
		if err := d.readMetaMember(&m, name, left); err != nil {
			return m, atName(err, name)
		}
	}
	return m, d.leaveContainer(c)
}

// readMetaMember reads one of the members left.
func (d *Decoder) readMetaMember(m *Meta, name string, left int) (err error) {
	switch name {
	case "name":
		m.Name, err = d.text()
		return err
	case "version":
		m.Version, err = d.text()
		return err
	case "properties":
		return d.eachMember(func(n int) { m.Properties = make([]Property, 0, n) }, costProperty, func(name string) error {
			p, err := d.readProperty(name)
			m.Properties = append(m.Properties, p)
			return err
		})
	case "methods":
		return d.eachMember(func(n int) { m.Methods = make([]Method, 0, n) }, costMethod, func(name string) error {
			f, err := d.readMethod(name)
			m.Methods = append(m.Methods, f)
			return err
		})
	}
	if m.Extra == nil {
		if err := d.spendEach(left, costField); err != nil {
			return err
		}
		m.Extra = make(Fields, 0, left)
	}
	var v any
	if d.PeekKind() == KindUndefined {
		v, err = Undefined{}, d.Skip()
	} else {
		v, err = d.Any()
	}
	m.Extra = append(m.Extra, Field{name, v})
	return err
}

// eachMember calls each at the value of every member of a map, and skips whatever
// is no map. Before, it takes the cost of all members from the budget and calls
// reserve, if there is one, with their number.
func (d *Decoder) eachMember(reserve func(n int), cost int, each func(name string) error) error {
	if k := d.PeekKind(); k != KindMap && k != KindMapExt {
		return d.Skip()
	}
	c, err := d.enterMap()
	if err != nil {
		return err
	}
	if err := d.spendEach(c.n, cost); err != nil {
		return err
	}
	if reserve != nil {
		reserve(c.n)
	}
	for range c.n {
		name, err := d.key()
		if err != nil {
			return err
		}
		if err := each(name); err != nil {
			return atName(err, name)
		}
	}
	return d.leaveContainer(c)
}

func (d *Decoder) readProperty(name string) (Property, error) {
	p := Property{Name: name}
	err := d.eachMember(nil, 0, func(member string) (err error) {
		switch {
		case member == "type":
			p.Type, err = d.text()
		case member == "readonly" && d.PeekKind() == KindBool:
			p.Readonly, err = d.Bool()
		default:
			err = d.Skip()
		}
		return err
	})
	return p, err
}

func (d *Decoder) readMethod(name string) (Method, error) {
	m := Method{Name: name}
	err := d.eachMember(nil, 0, func(member string) (err error) {
		switch {
		case member == "type":
			m.Type, err = d.text()
		case member == "arguments" && d.PeekKind() == KindArray:
			m.Arguments, err = d.readArguments()
		default:
			err = d.Skip()
		}
		return err
	})
	return m, err
}

func (d *Decoder) readArguments() ([]Argument, error) {
	c, err := d.enterArray()
	if err != nil {
		return nil, err
	}
	if err := d.spendEach(c.n, costArgument); err != nil {
		return nil, err
	}
	args := make([]Argument, c.n)
	for i := range args {
		if args[i], err = d.readArgument(); err != nil {
			return nil, atIndex(err, i)
		}
	}
	return args, d.leaveContainer(c)
}

func (d *Decoder) readArgument() (a Argument, err error) {
	if d.PeekKind() != KindMap {
		a.Type, err = d.text()
		return a, err
	}
	a.Indexed = true
	err = d.eachMember(nil, 0, func(member string) (err error) {
		switch member {
		case "type":
			a.Type, err = d.text()
		case "index":
			var i int64
			i, err = d.wholeOr0()
			a.Index = int(i)
		default:
			err = d.Skip()
		}
		return err
	})
	return a, err
}

// Reference names a service of the receiver by the id of its definition
// (extension 108).
type Reference struct{ DefID string }

func (r Reference) append(dst []byte) ([]byte, error) {
	if r.DefID == "" {
		return dst, &EncodeError{Msg: "reference without an id", Err: ErrRange}
	}
	start := len(dst)
	return extEnd(AppendString(extStart(dst), r.DefID), start, extReference), nil
}

func (d *Decoder) readReference() (r Reference, err error) {
	outer, err := d.wantExt(extReference, "a reference")
	if err != nil {
		return Reference{}, err
	}
	if r.DefID, err = d.String(); err != nil {
		return Reference{}, err
	}
	return r, d.leaveExt(outer)
}

// StreamReference announces a stream as an argument or a result (extension 107).
type StreamReference struct {
	StreamID uint32
	Writable bool // the sender writes to the stream; else it reads
	Live     bool
	PeerID   string
}

func (r StreamReference) append(dst []byte) []byte {
	start := len(dst)
	dst = append(extStart(dst), codeFixStr)
	digits := len(dst)
	dst = strconv.AppendUint(dst, uint64(r.StreamID), 10)
	dst[digits-1] |= byte(len(dst) - digits)
	dst = append(dst, flag(r.Writable), flag(r.Live))
	return extEnd(AppendString(dst, r.PeerID), start, extStreamReference)
}

func (d *Decoder) readStreamReference() (r StreamReference, err error) {
	start := d.pos
	outer, err := d.wantExt(extStreamReference, "a stream reference")
	if err != nil {
		return StreamReference{}, err
	}
	if d.PeekKind() == KindString {
		s, err := d.StringBytes()
		if err != nil {
			return StreamReference{}, err
		}
		id, ok := parseUint32(s)
		if !ok {
			return StreamReference{}, d.failAt(start, ErrMalformed, "stream id is not a decimal number of 32 bits")
		}
		r.StreamID = id
	} else {
		id, err := d.uintOf(32)
		if err != nil {
			return StreamReference{}, err
		}
		r.StreamID = uint32(id)
	}
	b, err := d.fixed(2)
	if err != nil {
		return StreamReference{}, err
	}
	r.Writable, r.Live = b[0] != 0, b[1] != 0
	if r.PeerID, err = d.text(); err != nil {
		return StreamReference{}, err
	}
	return r, d.leaveExt(outer)
}

func parseUint32(s []byte) (uint32, bool) {
	if len(s) == 0 || len(s) > 10 {
		return 0, false
	}
	n := uint64(0)
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(n), n <= math.MaxUint32
}
