package file

import (
	"io/fs"
	"os"
	"sync"
)

// maxSums is how many checksums a store remembers.
const maxSums = 4096

// sums remembers checksums by name, for as long as the files are the same.
type sums struct {
	mu    sync.Mutex
	known map[string]knownSum // guarded by mu
}

type knownSum struct {
	info fs.FileInfo
	sum  string
}

// get returns the checksum of the file that has the name now.
func (s *sums) get(name string, now fs.FileInfo) (sum string, ok bool) {
	s.mu.Lock()
	k, ok := s.known[name]
	s.mu.Unlock()
	ok = ok && k.info.Size() == now.Size() && k.info.ModTime().Equal(now.ModTime()) && os.SameFile(k.info, now)
	return k.sum, ok
}

// put remembers a checksum. When there are too many any other one is forgotten.
func (s *sums) put(name string, info fs.FileInfo, sum string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[string]knownSum)
	}
	if _, ok := s.known[name]; !ok && len(s.known) >= maxSums {
		for other := range s.known {
			delete(s.known, other)
			break
		}
	}
	s.known[name] = knownSum{info: info, sum: sum}
}
