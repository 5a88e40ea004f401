package buf

import "testing"

func TestGetRoom(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 4096, 4097, 1 << 20, 1<<20 + 1, 5 << 20} {
		b := Get(n)
		if len(b.B) != 0 || cap(b.B) < n {
			t.Errorf("Get(%d) = len %d cap %d, want len 0 cap >= %d", n, len(b.B), cap(b.B), n)
		}
		b.Release()
	}
}

func TestCopy(t *testing.T) {
	src := []byte("hello")
	b := Copy(src)
	src[0] = 'j'
	if string(b.B) != "hello" {
		t.Errorf("Copy = %q, want %q", b.B, "hello")
	}
	b.Release()
}

// TestGrownBufferKeepsClass checks that a buffer that outgrew its class comes back
// with the size of the class that it went to.
func TestGrownBufferKeepsClass(t *testing.T) {
	for range 100 {
		b := Get(300)
		b.B = append(b.B, make([]byte, 700)...)
		b.Release()
		for n := 256; n <= 1<<12; n *= 2 {
			c := Get(n)
			if cap(c.B) != n {
				t.Fatalf("Get(%d) = cap %d, want the size of its class", n, cap(c.B))
			}
			c.Release()
		}
	}
}

func TestDoubleReleasePanics(t *testing.T) {
	b := Get(3 << 20) // over the classes, so no pool can hand it out in between
	b.Release()
	defer func() {
		if recover() == nil {
			t.Error("second Release did not panic")
		}
	}()
	b.Release()
}

func BenchmarkGetRelease(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Get(512).Release()
	}
}

// TestCut checks that a buffer that was cut gives all its memory back, once.
func TestCut(t *testing.T) {
	b := Copy(make([]byte, 3000))
	copy(b.B[1000:], "hello")
	b.Cut(1000, 1005)
	if string(b.B) != "hello" || cap(b.B) != 5 {
		t.Fatalf("B = %q with room for %d, want hello alone", b.B, cap(b.B))
	}
	b.Cut(1, 3)
	if string(b.B) != "el" {
		t.Fatalf("B = %q, want el", b.B)
	}
	b.Append([]byte("f"))
	if string(b.B) != "elf" || b.mem != nil {
		t.Fatalf("B = %q after an append, want elf in memory of its own", b.B)
	}
	b.Release()

	b = Copy(make([]byte, 3000))
	mem := &b.B[0]
	b.Cut(2000, 2001)
	b.Release()
	if b.B != nil || len(b.mem) != 0 || cap(b.mem) != 4096 || &b.mem[:1][0] != mem {
		t.Errorf("a released buffer has %d bytes of its memory, want all", cap(b.mem))
	}
	defer func() {
		if recover() == nil {
			t.Error("second Release did not panic")
		}
	}()
	b.Release()
}
