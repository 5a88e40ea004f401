//go:build race

package buf

// poison overwrites released memory with a pattern that no protocol of ours
// produces.
func poison(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}
