package codec

import "math"

const (
	defaultDepth        = 64
	hardDepth           = 1024
	defaultBigIntDigits = 4096

	minDecodedBytes    = 1 << 20
	maxDecodedBytes    = 64 << 20
	decodedBytesFactor = 8
)

// Limits bounds what decoding one message may cost. The zero value means the
// defaults; a negative field means no limit.
type Limits struct {
	// Depth is how deep arrays, maps and extensions that contain values may be
	// nested. Zero means 64. Values above 1,024 and negative ones mean 1,024.
	Depth int

	// DecodedBytes is how much memory, in bytes, the decoded values may take
	// together, whatever the message claims: 16 for an element of a []any, the
	// length of a string, the real size of a map and so on. Zero means eight times
	// the length of the message, at least 1 MiB and at most 64 MiB.
	DecodedBytes int

	// BigIntDigits is how many decimal digits an integer of extension 120 may
	// have. Zero means 4,096.
	BigIntDigits int
}

// resolve returns what l means for a message.
func (l Limits) resolve(src []byte) (decodedBytes, depth, bigIntDigits int) {
	if l == (Limits{}) {
		return defaultBudget(len(src)), defaultDepth, defaultBigIntDigits
	}
	return l.decodedBytes(len(src)), l.depth(), l.bigIntDigits()
}

func (l Limits) depth() int {
	switch {
	case l.Depth == 0:
		return defaultDepth
	case l.Depth < 0 || l.Depth > hardDepth:
		return hardDepth
	}
	return l.Depth
}

func (l Limits) decodedBytes(wire int) int {
	switch {
	case l.DecodedBytes > 0:
		return l.DecodedBytes
	case l.DecodedBytes < 0:
		return math.MaxInt
	}
	return defaultBudget(wire)
}

// defaultBudget returns the limit of decoded bytes for a message of that many.
func defaultBudget(wire int) int {
	return decodedBytesFactor * min(max(wire, minDecodedBytes/decodedBytesFactor), maxDecodedBytes/decodedBytesFactor)
}

func (l Limits) bigIntDigits() int {
	switch {
	case l.BigIntDigits == 0:
		return defaultBigIntDigits
	case l.BigIntDigits < 0:
		return math.MaxInt
	}
	return l.BigIntDigits
}
