package engine

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"
)

// checkAgainstHTTP checks that net/http reads a request that we accept the same
// way: where two parsers differ, requests are smuggled.
func checkAgainstHTTP(t *testing.T, head []byte, req *Request) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return // net/http may be stricter still, as with Host
	}
	if r.Method != http.MethodGet || r.ContentLength != 0 || len(r.TransferEncoding) != 0 {
		t.Fatalf("net/http reads %s with a body of %d, %v: %q", r.Method, r.ContentLength, r.TransferEncoding, head)
	}
	for name, values := range req.Header {
		for i, v := range values {
			if got := r.Header[name]; i >= len(got) || got[i] != v {
				if name == "Content-Length" || name == "Trailer" {
					continue // net/http takes these out
				}
				t.Fatalf("%s = %q, net/http reads %q: %q", name, values, got, head)
			}
		}
	}
}
