package codec

import "reflect"

type (
	generatedEncoder struct{}
	generatedDecoder struct{}
	generatedTuple   struct{}
)

func (*generatedEncoder) append(dst []byte, rv reflect.Value) ([]byte, bool) { return dst, false }

func (d *Decoder) decodeGenerated(p *plan, rv reflect.Value) bool { return false }

func (c *compiler) inspect(p *plan) {}
