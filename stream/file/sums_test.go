package file

import (
	"os"
	"strconv"
	"testing"
)

func TestSumsAreBounded(t *testing.T) {
	info, err := os.Stat(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var s sums
	for i := range maxSums + 10 {
		name := strconv.Itoa(i)
		s.put(name, info, name)
		if sum, ok := s.get(name, info); !ok || sum != name {
			t.Fatalf("get(%s) = %s, %t", name, sum, ok)
		}
	}
	if len(s.known) != maxSums {
		t.Errorf("%d checksums are remembered, want %d", len(s.known), maxSums)
	}
}
