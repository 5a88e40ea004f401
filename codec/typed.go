package codec

// Typed encodes and decodes values of one type.
type Typed[T any] struct{}

func TypedOf[T any]() *Typed[T] { return &Typed[T]{} }
func (t *Typed[T]) Append(dst []byte, v *T) ([]byte, error) { return Append(dst, v) }
func (t *Typed[T]) Decode(d *Decoder, v *T) error { return d.Decode(v) }
func (t *Typed[T]) AppendTuple(dst []byte, v *T) ([]byte, int, error) { return AppendTuple(dst, v) }
func (t *Typed[T]) DecodeTuple(d *Decoder, v *T, n int) error { return d.DecodeTuple(v, n) }
