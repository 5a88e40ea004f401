package codec

import "reflect"

// GeneratedForm says how the generated code of a type is used: "map", "tuple" or
// "" for not at all.
func GeneratedForm(t reflect.Type) string {
	switch g := planOf(t).generated; {
	case g == nil:
		return ""
	case g.tuple:
		return "tuple"
	}
	return "map"
}

// DecodePlain and AppendPlain work without generated code.
func DecodePlain(src []byte, v any) error {
	rv := reflect.ValueOf(v).Elem()
	p := *planOf(rv.Type())
	p.generated = nil
	d := NewDecoder(src, Limits{})
	if err := d.decodeStruct(&p, rv); err != nil {
		return err
	}
	return d.End()
}

// JSNumber is jsNumber.
func JSNumber(f float64) string { return jsNumber(f) }

// State returns where d is, how deep, and what is left of its budget.
func (d *Decoder) State() (pos, depth, budget int) { return d.pos, d.depth, d.budget }

// IsDirect says whether values of type t are read and written in place.
func IsDirect(t reflect.Type) bool { return planOf(t).shape != shapeOpaque }
