package file_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/stream/file"
)

// clientOf returns the client that a peer next to the store would have.
func clientOf(s *file.Store) *file.Client {
	return &file.Client{
		UploadFile: s.UploadFile, DownloadFile: s.DownloadFile, StatFile: s.StatFile, ListFiles: s.ListFiles, RemoveFile: s.RemoveFile,
	}
}

func TestRoundTrip(t *testing.T) {
	s, dir := openStore(t, file.Config{MaxBytes: -1})
	c, local := clientOf(s), t.TempDir()
	for name, content := range map[string]string{"empty": "", "small": "hello", "d/large": strings.Repeat("0123456789", 100_000)} {
		from, to := filepath.Join(local, "from"), filepath.Join(local, "to")
		write(t, from, content)
		write(t, to, "old")
		for _, move := range []struct {
			do   func(context.Context, string, string, func(file.Progress)) (file.Info, error)
			path string
		}{{c.Upload, from}, {c.Download, to}} {
			last := file.Progress{Bytes: -1}
			info, err := move.do(t.Context(), name, move.path, func(p file.Progress) { last = p })
			if err != nil || info.Name != name || info.Size != int64(len(content)) || info.Checksum != sumOf(content) {
				t.Fatalf("%s: got %+v, %v", name, info, err)
			}
			if last.Bytes != info.Size || last.Total != info.Size || last.Fraction() != 1 {
				t.Errorf("%s: last report is %+v, want %d bytes", name, last, info.Size)
			}
		}
		wantFiles(t, name, local, map[string]string{"from": content, "to": content})
		if err := c.RemoveFile(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	wantFiles(t, "all are removed", dir, map[string]string{})
}

func TestUploadAnswer(t *testing.T) {
	local := filepath.Join(t.TempDir(), "a")
	write(t, local, "hello")
	for why, answer := range map[string]file.Info{
		"another size":     {Size: 4, Checksum: sumOf("hello")},
		"another checksum": {Size: 5, Checksum: sumOf("hullo")},
		"a negative size":  {Size: -1},
	} {
		c := file.Client{UploadFile: func(_ context.Context, _ string, body io.Reader, meta *file.Metadata) (file.Info, error) {
			if n, err := io.Copy(io.Discard, body); n != meta.Size || err != nil {
				t.Errorf("got %d bytes, %v, want %d", n, err, meta.Size)
			}
			return answer, nil
		}}
		if _, err := c.Upload(t.Context(), "a", local, nil); !errors.Is(err, file.ErrChecksum) {
			t.Errorf("%s: got %v, want ErrChecksum", why, err)
		}
	}
	c := file.Client{}
	if _, err := c.Upload(t.Context(), "a", local+"x", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("upload of nothing: %v", err)
	}
}

func TestDownloadKeepsOldFile(t *testing.T) {
	good := file.Info{Size: 5, Checksum: sumOf("hello")}
	lost := rpc.Errorf(rpc.Unavailable, "gone")
	for _, tc := range []struct {
		why     string
		info    file.Info
		body    io.Reader
		statErr error
		openErr error
		want    rpc.Code
	}{
		{"stat fails", good, nil, lost, nil, rpc.Unavailable},
		{"download fails", good, nil, nil, lost, rpc.Unavailable},
		{"body fails", good, io.MultiReader(strings.NewReader("hel"), readerFunc(func([]byte) (int, error) { return 0, lost })), nil, nil, rpc.Unavailable},
		{"short", good, strings.NewReader("hell"), nil, nil, rpc.DataLoss},
		{"endless", good, readerFunc(func(p []byte) (int, error) { return len(p), nil }), nil, nil, rpc.DataLoss},
		{"endless of negative size", file.Info{Size: -1}, readerFunc(func(p []byte) (int, error) { return len(p), nil }), nil, nil, rpc.DataLoss},
		{"another checksum", good, strings.NewReader("hullo"), nil, nil, rpc.DataLoss},
	} {
		dir := t.TempDir()
		local := filepath.Join(dir, "a")
		write(t, local, "old")
		closed := false
		c := file.Client{
			StatFile: func(context.Context, string) (file.Info, error) { return tc.info, tc.statErr },
			DownloadFile: func(context.Context, string) (io.ReadCloser, error) {
				return readCloser{tc.body, func() { closed = true }}, tc.openErr
			},
		}
		_, err := c.Download(t.Context(), "a", local, nil)
		wantCode(t, tc.why, err, tc.want)
		if (tc.want == rpc.DataLoss) != errors.Is(err, file.ErrChecksum) {
			t.Errorf("%s: got %v", tc.why, err)
		}
		if closed != (tc.body != nil) {
			t.Errorf("%s: body closed: %t", tc.why, closed)
		}
		wantFiles(t, tc.why, dir, map[string]string{"a": "old"})
	}
}

type readCloser struct {
	io.Reader
	onClose func()
}

func (r readCloser) Close() error { r.onClose(); return nil }

func TestDownloadTargets(t *testing.T) {
	s, _ := openStore(t, file.Config{})
	upload(t, s, "a", "x")
	c, dir := clientOf(s), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"d", "d/", "none/a"} {
		if _, err := c.Download(t.Context(), "a", dir+"/"+target, nil); err == nil {
			t.Errorf("Download to %s succeeded", target)
		}
	}
	t.Chdir(dir)
	if _, err := c.Download(t.Context(), "a", "a", nil); err != nil {
		t.Error(err)
	}
	wantFiles(t, "downloaded", dir, map[string]string{"a": "x"})
}
