package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"syscall"
	"time"
)

// Config describes a [Store]. The zero value works.
type Config struct {
	// MaxBytes limits the size of a file that is uploaded. Default 1 GiB, negative none.
	MaxBytes int64

	// OnProgress is told how uploads get on, as [NewReader] says, on the goroutine of each
	// upload and with its context. The last report comes when the body has ended; whether
	// the file is kept is decided after it. Nil ignores it.
	OnProgress func(ctx context.Context, filename string, p Progress)
}

func (c *Config) maxBytes() int64 {
	switch {
	case c.MaxBytes == 0:
		return 1 << 30
	case c.MaxBytes < 0:
		return math.MaxInt64 - 1
	}
	return min(c.MaxBytes, math.MaxInt64-1)
}

const (
	// staleAfter is how long a temporary file that nobody writes to is kept: far longer than
	// a byte stream waits for its next chunk.
	staleAfter = time.Hour
	// maxList is how many files fit a list.
	maxList = 1 << 16
)

// Metadata is what the sender of a file knows about it beforehand.
type Metadata struct {
	// Size is in bytes, 0 if it is not known.
	Size int64 `msgpack:"size,omitempty"`

	// Checksum is the SHA-256 in hex, empty if it is not known.
	Checksum string `msgpack:"checksum,omitempty"`
}

// Info describes a file of a [Store].
type Info struct {
	// Name is the path in the store, with slashes.
	Name string `msgpack:"filename"`

	// Size is in bytes.
	Size int64 `msgpack:"size"`

	// Modified is in UTC and to the millisecond, 1970 for what is older.
	Modified time.Time `msgpack:"modified"`

	// Checksum is the SHA-256 in lower-case hex, empty in lists.
	Checksum string `msgpack:"checksum,omitempty"`
}

func newInfo(name string, info fs.FileInfo, sum string) Info {
	modified := time.UnixMilli(max(info.ModTime().UnixMilli(), 0)).UTC() // what the wire has a form for
	return Info{Name: name, Size: info.Size(), Modified: modified, Checksum: sum}
}

// Store serves the files of a directory. Its methods with a context are those of the
// service that it is exposed as.
//
// Their errors have a code: invalid_argument for names and metadata that are none,
// not_found, resource_exhausted for limits and full disks, data_loss as [ErrChecksum] says,
// failed_precondition for an upload in place of a directory or a link, or below a file,
// permission_denied for links that lead out, and internal for other errors of the system.
// Their texts do not tell where the directory is. Errors of a body pass.
//
// Symbolic links that stay in the directory are followed, except that the last part of a
// name that is written or removed must not be one. Those who write into the directory by
// other means should rename as well: a checksum is believed while size, time and identity
// of the file are the same. How many uploads run at a time is left to middleware.
type Store struct {
	root    *os.Root
	cfg     Config
	sums    sums
	hashing chan struct{} // holds an element while a checksum is computed: one at a time
}

// OpenStore opens a directory, which must exist, and removes the temporary files that a
// crashed process left in it. They are known by their names, and by not having been
// written to for an hour. Looking for them takes a walk through all directories.
func OpenStore(dir string, cfg Config) (*Store, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("file: open store: %w", err)
	}
	s := &Store{root: root, cfg: cfg, hashing: make(chan struct{}, 1)}
	err = s.walk(func(name string, info fs.FileInfo) error {
		if isTempName(path.Base(name)) && time.Since(info.ModTime()) > staleAfter {
			return root.Remove(name)
		}
		return nil
	})
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("file: open store: %w", err)
	}
	return s, nil
}

// Close lets the directory go. Calls fail from then on, with the code unavailable; those
// under way may fail.
func (s *Store) Close() error { return s.root.Close() }

// UploadFile writes a file, in place of the one that has the name, if there is one. Its
// directory is made at need, and stays. A nil meta means that nothing is known.
//
// The file appears when body has ended with [io.EOF] and all that meta says was true. After
// any error the old one is what it was.
func (s *Store) UploadFile(ctx context.Context, filename string, body io.Reader, meta *Metadata) (Info, error) {
	if meta == nil {
		meta = new(Metadata)
	}
	info, err := s.upload(ctx, filename, body, meta)
	if err != nil {
		return Info{}, failure("upload", filename, err)
	}
	return info, nil
}

func (s *Store) upload(ctx context.Context, name string, body io.Reader, meta *Metadata) (Info, error) {
	maxBytes := s.cfg.maxBytes()
	switch {
	case !isName(name):
		return Info{}, errName
	case body == nil:
		return Info{}, errBody
	case meta.Size < 0, meta.Checksum != "" && !isSum(meta.Checksum):
		return Info{}, errMetadata
	case meta.Size > maxBytes:
		return Info{}, fmt.Errorf("%w: the limit is %d bytes", errTooLarge, maxBytes)
	}
	if err := s.root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return Info{}, err
	}
	var onProgress func(Progress)
	if s.cfg.OnProgress != nil {
		onProgress = func(p Progress) { s.cfg.OnProgress(ctx, name, p) }
	}
	size := meta.Size
	if size == 0 {
		size = -1
	}
	r := NewReader(io.LimitReader(body, maxBytes+1), size, onProgress)
	info, err := replace(ctx, s.root, name, func(w io.Writer) error {
		err := receive(ctx, w, r, size, meta.Checksum)
		if r.Bytes() > maxBytes {
			return fmt.Errorf("%w: the limit is %d bytes", errTooLarge, maxBytes)
		}
		return err
	})
	if err != nil {
		return Info{}, err
	}
	sum := r.Sum()
	s.sums.put(name, info, sum)
	return newInfo(name, info, sum), nil
}

func isSum(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

// DownloadFile opens a file. What is read is the file that had the name then, also when it
// is replaced meanwhile. The caller closes it.
func (s *Store) DownloadFile(_ context.Context, filename string) (io.ReadCloser, error) {
	if _, err := s.find(filename, s.root.Stat); err != nil {
		return nil, failure("download", filename, err)
	}
	f, err := s.root.Open(filename)
	if err != nil {
		return nil, failure("download", filename, err)
	}
	return f, nil
}

// find looks for a regular file with one of the methods of root. It must be one before it is
// opened: opening a pipe may block.
func (s *Store) find(name string, stat func(name string) (fs.FileInfo, error)) (fs.FileInfo, error) {
	if !isName(name) {
		return nil, errName
	}
	info, err := stat(name)
	if errors.Is(err, syscall.ENOTDIR) || (err == nil && !info.Mode().IsRegular()) {
		err = errNoFile
	}
	return info, err
}

// StatFile describes a file. Its checksum is remembered from the upload or from the last
// time. Otherwise the file is read, and the store reads one file at a time for this.
func (s *Store) StatFile(ctx context.Context, filename string) (Info, error) {
	info, err := s.stat(ctx, filename)
	if err != nil {
		return Info{}, failure("stat", filename, err)
	}
	return info, nil
}

func (s *Store) stat(ctx context.Context, name string) (Info, error) {
	info, err := s.find(name, s.root.Stat)
	if err != nil {
		return Info{}, err
	}
	if sum, ok := s.sums.get(name, info); ok {
		return newInfo(name, info, sum), nil
	}
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return Info{}, ctx.Err()
	}
	f, err := s.root.Open(name)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return Info{}, err
	}
	sum, ok := s.sums.get(name, info) // another call may have read it meanwhile
	if !ok {
		r := NewReader(io.LimitReader(f, info.Size()), info.Size(), nil)
		if err := copyBytes(ctx, io.Discard, r); err != nil {
			return Info{}, err
		}
		sum = r.Sum()
		s.sums.put(name, info, sum)
	}
	return newInfo(name, info, sum), nil
}

// ListFiles describes all files, without checksums, directory by directory. More than 65,536
// are an error of the code resource_exhausted.
func (s *Store) ListFiles(ctx context.Context) ([]Info, error) {
	list := []Info{} // for peers none is not nil
	err := s.walk(func(name string, info fs.FileInfo) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !isName(name):
			return nil
		case len(list) == maxList:
			return errTooMany
		}
		list = append(list, newInfo(name, info, ""))
		return nil
	})
	if err != nil {
		return nil, failure("list", ".", err)
	}
	return list, nil
}

// walk visits the regular files. Directories that must not be read are passed over, and so
// is what goes away meanwhile.
func (s *Store) walk(visit func(name string, info fs.FileInfo) error) error {
	return fs.WalkDir(s.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = s.root.Lstat(name); err == nil {
				err = visit(name, info)
			}
		}
		if name != "." && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			return nil
		}
		return err
	})
}

// RemoveFile removes a file. Its directory stays.
func (s *Store) RemoveFile(_ context.Context, filename string) error {
	_, err := s.find(filename, s.root.Lstat)
	if err == nil {
		err = s.root.Remove(filename)
	}
	if err != nil {
		return failure("remove", filename, err)
	}
	return nil
}
