package file

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// The names of temporary files, with 26 letters and digits of [rand.Text] in between.
const (
	tempPrefix = ".netron-"
	tempSuffix = ".tmp"
	tempLength = len(tempPrefix) + 26 + len(tempSuffix)
)

func tempName() string { return tempPrefix + rand.Text() + tempSuffix }

func isTempName(base string) bool {
	return len(base) == tempLength && strings.HasPrefix(base, tempPrefix) && strings.HasSuffix(base, tempSuffix)
}

// replace makes a file of what write writes, and returns what it became. It is there all at
// once or, after an error, not at all. What is not a regular file is not replaced.
func replace(ctx context.Context, root *os.Root, name string, write func(io.Writer) error) (fs.FileInfo, error) {
	if old, err := root.Lstat(name); err == nil && !old.Mode().IsRegular() {
		return nil, errNotRegular
	}
	temp := path.Join(path.Dir(name), tempName())
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	renamed := false
	defer func() {
		f.Close() // again, after success
		if !renamed {
			_ = root.Remove(temp)
		}
	}()
	if err := write(f); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := root.Rename(temp, name); err != nil {
		return nil, err
	}
	renamed = true
	syncDirectory(root, path.Dir(name))
	return info, nil
}

// syncDirectory makes a renaming last, on systems that can. It is done already, so that it
// may not last is no error.
func syncDirectory(root *os.Root, name string) {
	if d, err := root.Open(name); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// copyBytes copies all of r. It stops between two reads when ctx ends.
func copyBytes(ctx context.Context, w io.Writer, r io.Reader) error {
	buf := make([]byte, 128<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		switch err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// receive copies a body and verifies it.
func receive(ctx context.Context, w io.Writer, body *Reader, size int64, checksum string) error {
	src := io.Reader(body)
	if size >= 0 {
		src = io.LimitReader(body, size+1) // one more shows that it is too long
	}
	if err := copyBytes(ctx, w, src); err != nil {
		return err
	}
	return verify(body, size, checksum)
}

// verify compares what was read with the size, -1 for any, and the checksum, empty for any.
func verify(r *Reader, size int64, checksum string) error {
	if size >= 0 && r.Bytes() != size {
		return fmt.Errorf("%w: want %d bytes", ErrChecksum, size)
	}
	if sum := r.Sum(); checksum != "" && !strings.EqualFold(checksum, sum) {
		return fmt.Errorf("%w: SHA-256 is %s", ErrChecksum, sum)
	}
	return nil
}
