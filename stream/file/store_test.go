package file_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/stream/file"
)

// openStore returns a store and its directory, which has a neighbour that nobody may get
// at: ../secret.
func openStore(t *testing.T, cfg file.Config) (*file.Store, string) {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "store")
	write(t, filepath.Join(top, "secret"), "secret")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := file.OpenStore(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, dir
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func upload(t *testing.T, s *file.Store, name, content string) file.Info {
	t.Helper()
	info, err := s.UploadFile(t.Context(), name, strings.NewReader(content), nil)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func sumOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

func read(ctx context.Context, s *file.Store, name string) (string, error) {
	body, err := s.DownloadFile(ctx, name)
	if err != nil {
		return "", err
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	return string(content), err
}

// wantFiles checks what there is in a directory, hidden files included.
func wantFiles(t *testing.T, why, dir string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		rel, _ := filepath.Rel(dir, name)
		got[filepath.ToSlash(rel)] = string(content)
		return err
	})
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%s: the directory has %q, %v, want %q", why, got, err, want)
	}
}

func wantCode(t *testing.T, why string, err error, want rpc.Code) {
	t.Helper()
	if got := rpc.CodeOf(err); got != want {
		t.Errorf("%s: got error %v of code %v, want %v", why, err, got, want)
	}
}

var names = map[string]bool{
	"a": true, "a.txt": true, "a/b/c.txt": true, "Ü/日本": true, "a b": true, "..a": true, "a..b": true,
	".hidden": true, "netron-x.tmp": true, ".netron": true, strings.Repeat("n", 255): true,

	"": false, ".": false, "..": false, "/": false, "/etc/passwd": false, "../secret": false, "a/../../secret": false,
	"a/..": false, "a/../b": false, "./a": false, "a/.": false, "a//b": false, "a/": false, "//a": false,
	"a\x00b": false, "a\nb": false, "a\u0085b": false, "\xff": false, strings.Repeat("n", 256): false,
	strings.Repeat("a/", 512) + "b":          false,
	".netron-ABCDEFGHIJKLMNOPQRSTUVWXYZ.tmp": false, "a/.netron-x": false, ".NETRON-x": false, ".netron-d/a": false,
	`..\secret`: false, `C:\a`: false, `\\host\share`: false, `a\b`: false,
	"CON": runtime.GOOS != "windows", "C:a": runtime.GOOS != "windows", "a:stream": runtime.GOOS != "windows",
}

func TestNames(t *testing.T) {
	for name, ok := range names {
		s, dir := openStore(t, file.Config{})
		ctx := t.Context()
		_, err := s.UploadFile(ctx, name, strings.NewReader("x"), nil)
		if ok {
			content, readErr := read(ctx, s, name)
			info, statErr := s.StatFile(ctx, name)
			if err != nil || readErr != nil || statErr != nil || content != "x" || info.Name != name {
				t.Errorf("%q: uploaded %v, read %q, %v, stat %+v, %v", name, err, content, readErr, info, statErr)
			}
			if err := s.RemoveFile(ctx, name); err != nil {
				t.Errorf("%q: RemoveFile: %v", name, err)
			}
		} else {
			wantCode(t, "upload "+name, err, rpc.InvalidArgument)
			_, err = s.DownloadFile(ctx, name)
			wantCode(t, "download "+name, err, rpc.InvalidArgument)
			_, err = s.StatFile(ctx, name)
			wantCode(t, "stat "+name, err, rpc.InvalidArgument)
			wantCode(t, "remove "+name, s.RemoveFile(ctx, name), rpc.InvalidArgument)
		}
		wantFiles(t, name, filepath.Dir(dir), map[string]string{"secret": "secret"})
	}
}

func FuzzName(f *testing.F) {
	for name := range names {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		s, dir := openStore(t, file.Config{})
		want := map[string]string{"secret": "secret"}
		_, err := s.UploadFile(t.Context(), name, strings.NewReader("x"), nil)
		if err == nil {
			want["store/"+name] = "x"
			if list, err := s.ListFiles(t.Context()); err != nil || len(list) != 1 || list[0].Name != name {
				t.Errorf("ListFiles = %+v, %v, want %q", list, err, name)
			}
		} else {
			wantCode(t, "upload "+name, err, rpc.InvalidArgument)
		}
		wantFiles(t, name, filepath.Dir(dir), want)
	})
}

func TestLinks(t *testing.T) {
	s, dir := openStore(t, file.Config{})
	upload(t, s, "real/a", "inside")
	for link, target := range map[string]string{
		"out": "../secret", "absolute": filepath.Join(filepath.Dir(dir), "secret"), "up": "..", "in": "real/a", "d": "real", "loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Skip("no symbolic links here:", err)
		}
	}
	ctx := t.Context()
	for _, name := range []string{"out", "absolute", "up/secret", "loop", "up"} {
		if content, err := read(ctx, s, name); err == nil {
			t.Errorf("read %s through a link: %q", name, content)
		}
		if info, err := s.StatFile(ctx, name); err == nil {
			t.Errorf("StatFile(%s) = %+v through a link", name, info)
		}
		if err := s.RemoveFile(ctx, name); err == nil {
			t.Errorf("removed %s through a link", name)
		}
		if _, err := s.UploadFile(ctx, name, strings.NewReader("x"), nil); err == nil {
			t.Errorf("wrote to %s through a link", name)
		}
	}
	_, err := s.DownloadFile(ctx, "out")
	wantCode(t, "a link that leads out", err, rpc.PermissionDenied)
	for _, name := range []string{"in", "d/a"} {
		if content, err := read(ctx, s, name); content != "inside" {
			t.Errorf("read %s through a link inside: %q, %v", name, content, err)
		}
	}
	_, err = s.UploadFile(ctx, "in", strings.NewReader("x"), nil)
	wantCode(t, "upload in place of a link", err, rpc.FailedPrecondition)
	if list, err := s.ListFiles(ctx); err != nil || len(list) != 1 || list[0].Name != "real/a" {
		t.Errorf("ListFiles = %+v, %v, want real/a alone", list, err)
	}
	if content, err := os.ReadFile(filepath.Join(dir, "../secret")); string(content) != "secret" {
		t.Errorf("the neighbour has %q, %v", content, err)
	}
}

func TestUploadKeepsOldFile(t *testing.T) {
	broken := errors.New("line cut")
	long := strings.Repeat("x", 300<<10)
	for _, tc := range []struct {
		why  string
		body func(cancel func()) io.Reader
		meta *file.Metadata
		want rpc.Code
	}{
		{"no body", func(func()) io.Reader { return nil }, nil, rpc.InvalidArgument},
		{"body fails", func(func()) io.Reader {
			return io.MultiReader(strings.NewReader("new"), iotest.ErrReader(broken))
		}, nil, rpc.Unknown},
		{"peer breaks off", func(func()) io.Reader {
			return io.MultiReader(strings.NewReader("new"), iotest.ErrReader(rpc.Errorf(rpc.Aborted, "no more")))
		}, nil, rpc.Aborted},
		{"body is short", body("ne"), &file.Metadata{Size: 3}, rpc.DataLoss},
		{"body is long", body("newer"), &file.Metadata{Size: 3}, rpc.DataLoss},
		{"another checksum", body("new"), &file.Metadata{Checksum: sumOf("now")}, rpc.DataLoss},
		{"no checksum at all", body("new"), &file.Metadata{Checksum: "abc"}, rpc.InvalidArgument},
		{"negative size", body("new"), &file.Metadata{Size: -1}, rpc.InvalidArgument},
		{"above the limit", body(long), nil, rpc.ResourceExhausted},
		{"above the limit as announced", func(func()) io.Reader { return iotest.ErrReader(broken) }, &file.Metadata{Size: 300 << 10}, rpc.ResourceExhausted},
		{"canceled before", func(cancel func()) io.Reader { cancel(); return strings.NewReader("new") }, nil, rpc.Canceled},
		{"canceled on the way", func(cancel func()) io.Reader {
			return io.MultiReader(strings.NewReader("new"), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }), strings.NewReader("er"))
		}, nil, rpc.Canceled},
		{"canceled with the last byte", func(cancel func()) io.Reader {
			return readerFunc(func(p []byte) (int, error) { cancel(); return copy(p, "new"), io.EOF })
		}, nil, rpc.Canceled},
	} {
		s, dir := openStore(t, file.Config{MaxBytes: 200 << 10})
		upload(t, s, "d/a", "old")
		before, _ := s.StatFile(t.Context(), "d/a")
		ctx, cancel := context.WithCancel(t.Context())
		info, err := s.UploadFile(ctx, "d/a", tc.body(cancel), tc.meta)
		cancel()
		wantCode(t, tc.why, err, tc.want)
		if (info != file.Info{}) || (tc.want == rpc.DataLoss) != errors.Is(err, file.ErrChecksum) {
			t.Errorf("%s: UploadFile = %+v, %v", tc.why, info, err)
		}
		if after, err := s.StatFile(t.Context(), "d/a"); after != before {
			t.Errorf("%s: StatFile = %+v, %v, want %+v", tc.why, after, err, before)
		}
		wantFiles(t, tc.why, dir, map[string]string{"d/a": "old"})
		if err != nil && strings.Contains(err.Error(), dir) {
			t.Errorf("%s: the error tells where the files are: %v", tc.why, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func body(content string) func(func()) io.Reader {
	return func(func()) io.Reader { return iotest.OneByteReader(strings.NewReader(content)) }
}

// A hook that panics must not leave a file behind either.
func TestUploadPanic(t *testing.T) {
	s, dir := openStore(t, file.Config{OnProgress: func(context.Context, string, file.Progress) { panic("hook") }})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic of the hook did not pass")
			}
		}()
		s.UploadFile(t.Context(), "a", strings.NewReader("new"), nil)
	}()
	wantFiles(t, "after a panic", dir, map[string]string{})
}

func TestUpload(t *testing.T) {
	type report struct {
		name string
		p    file.Progress
	}
	var last report
	s, dir := openStore(t, file.Config{MaxBytes: 5, OnProgress: func(_ context.Context, name string, p file.Progress) { last = report{name, p} }})
	upload(t, s, "d/a", "old")
	if last.p.Total != -1 || last.p.Bytes != 3 {
		t.Errorf("last report is %+v, want 3 of an unknown number", last)
	}
	meta := &file.Metadata{Size: 5, Checksum: strings.ToUpper(sumOf("newer"))}
	info, err := s.UploadFile(t.Context(), "d/a", strings.NewReader("newer"), meta)
	if err != nil || info.Name != "d/a" || info.Size != 5 || info.Checksum != sumOf("newer") || time.Since(info.Modified) > time.Hour {
		t.Errorf("UploadFile = %+v, %v", info, err)
	}
	if last.name != "d/a" || last.p.Fraction() != 1 || last.p.Bytes != 5 {
		t.Errorf("last report is %+v, want 5 of 5", last)
	}
	if stat, err := s.StatFile(t.Context(), "d/a"); stat != info {
		t.Errorf("StatFile = %+v, %v, want %+v", stat, err, info)
	}
	if empty := upload(t, s, "empty", ""); empty.Size != 0 || empty.Checksum != sumOf("") {
		t.Errorf("UploadFile = %+v, want an empty file", empty)
	}
	wantFiles(t, "after uploads", dir, map[string]string{"d/a": "newer", "empty": ""})
}

func TestStoreErrors(t *testing.T) {
	s, _ := openStore(t, file.Config{})
	upload(t, s, "d/a", "x")
	ctx := t.Context()
	_, err := s.DownloadFile(ctx, "none")
	wantCode(t, "download of nothing", err, rpc.NotFound)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that is fs.ErrNotExist", err)
	}
	_, err = s.DownloadFile(ctx, "d")
	wantCode(t, "download of a directory", err, rpc.NotFound)
	_, err = s.StatFile(ctx, "d/a/b")
	wantCode(t, "stat below a file", err, rpc.NotFound)
	wantCode(t, "removal of nothing", s.RemoveFile(ctx, "none"), rpc.NotFound)
	wantCode(t, "removal of a directory", s.RemoveFile(ctx, "d"), rpc.NotFound)
	_, err = s.UploadFile(ctx, "d", strings.NewReader("x"), nil)
	wantCode(t, "upload in place of a directory", err, rpc.FailedPrecondition)
	_, err = s.UploadFile(ctx, "d/a/b", strings.NewReader("x"), nil)
	wantCode(t, "upload below a file", err, rpc.FailedPrecondition)
	_, err = s.UploadFile(ctx, "d/a/b/c", strings.NewReader("x"), nil)
	wantCode(t, "upload further below a file", err, rpc.FailedPrecondition)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.ListFiles(canceled)
	wantCode(t, "list after the end of the context", err, rpc.Canceled)

	s.Close()
	_, err = s.StatFile(ctx, "d/a")
	wantCode(t, "stat of a closed store", err, rpc.Unavailable)
	_, err = s.UploadFile(ctx, "d/a", strings.NewReader("x"), nil)
	wantCode(t, "upload to a closed store", err, rpc.Unavailable)
	if _, err := file.OpenStore(filepath.Join(t.TempDir(), "none"), file.Config{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenStore of no directory: %v", err)
	}
}

func TestListAndRemove(t *testing.T) {
	s, dir := openStore(t, file.Config{})
	if list, err := s.ListFiles(t.Context()); list == nil || len(list) > 0 || err != nil {
		t.Errorf("ListFiles = %#v, %v, want an empty list", list, err)
	}
	for _, name := range []string{"b", "a/2", "a/1"} {
		upload(t, s, name, name)
	}
	write(t, filepath.Join(dir, ".netron-of another program"), "not for peers")
	os.Chtimes(filepath.Join(dir, "b"), time.Time{}, time.Unix(-5, 0))
	if err := s.RemoveFile(t.Context(), "a/1"); err != nil {
		t.Error(err)
	}
	list, err := s.ListFiles(t.Context())
	if err != nil || len(list) != 2 || list[0].Name != "a/2" || list[0].Size != 3 || list[1].Name != "b" || list[1].Modified.Unix() != 0 {
		t.Errorf("ListFiles = %+v, %v, want a/2 and b", list, err)
	}
	for _, v := range list {
		var back file.Info
		if p, err := codec.Append(nil, v); err != nil || codec.Unmarshal(p, &back) != nil || back != v {
			t.Errorf("%+v came over the wire as %+v, %v", v, back, err)
		}
	}
}

// The checksum is computed when the file is another one, and only then.
func TestChecksumCache(t *testing.T) {
	s, dir := openStore(t, file.Config{})
	info := upload(t, s, "a", "one")
	a, other := filepath.Join(dir, "a"), filepath.Join(dir, "other")
	on, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	wantSum := func(why, content string) {
		t.Helper()
		if got, err := s.StatFile(t.Context(), "a"); err != nil || got.Checksum != sumOf(content) {
			t.Errorf("%s: StatFile = %+v, %v, want the checksum of %q", why, got, err, content)
		}
	}
	write(t, a, "two")
	os.Chtimes(a, time.Time{}, on.ModTime())
	wantSum("nothing tells that it is not the file of the upload", "one")
	os.Chtimes(a, time.Time{}, on.ModTime().Add(time.Second))
	wantSum("another time", "two")
	write(t, a, "six")
	os.Chtimes(a, time.Time{}, on.ModTime().Add(time.Second))
	wantSum("nothing tells that it is not the file of the last question", "two")
	write(t, other, "ten")
	os.Chtimes(other, time.Time{}, on.ModTime().Add(time.Second))
	os.Rename(other, a)
	wantSum("another file of the same size and time", "ten")
	write(t, a, "three")
	os.Chtimes(a, time.Time{}, on.ModTime().Add(time.Second))
	wantSum("another size", "three")
	if info.Checksum != sumOf("one") {
		t.Errorf("UploadFile said %s", info.Checksum)
	}

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	write(t, other, "unread")
	_, err = s.StatFile(canceled, "other")
	wantCode(t, "stat after the end of the context", err, rpc.Canceled)
}

func TestConcurrentUploads(t *testing.T) {
	s, dir := openStore(t, file.Config{})
	const writers, rounds, size = 8, 5, 200 << 10
	sums := map[string]bool{}
	for i := range writers {
		sums[sumOf(strings.Repeat(string(rune('a'+i)), size))] = true
	}
	upload(t, s, "d/f", strings.Repeat("a", size))
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range rounds {
				body := bytes.NewReader(bytes.Repeat([]byte{'a' + byte(i)}, size))
				if _, err := s.UploadFile(t.Context(), "d/f", body, &file.Metadata{Size: size}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				if content, err := read(t.Context(), s, "d/f"); err != nil || !sums[sumOf(content)] {
					t.Errorf("read a mix of %d bytes, %v", len(content), err)
				}
				if info, err := s.StatFile(t.Context(), "d/f"); err != nil || !sums[info.Checksum] || info.Size != size {
					t.Errorf("StatFile = %+v, %v, want one of those that were uploaded", info, err)
				}
			}
		})
	}
	wg.Wait()
	content, err := read(t.Context(), s, "d/f")
	info, statErr := s.StatFile(t.Context(), "d/f")
	if err != nil || statErr != nil || info.Checksum != sumOf(content) {
		t.Errorf("StatFile = %+v, %v, want the checksum of what is there, %v", info, statErr, err)
	}
	wantFiles(t, "after all", dir, map[string]string{"d/f": content})
}

func TestStaleFiles(t *testing.T) {
	s, dir := openStore(t, file.Config{})
	upload(t, s, "d/a", "x")
	s.Close()
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{".netron-" + letters + ".tmp", "d/.netron-" + letters + ".tmp", ".netron-short.tmp", "x.tmp"} {
		write(t, filepath.Join(dir, name), "old")
		os.Chtimes(filepath.Join(dir, name), old, old)
	}
	write(t, filepath.Join(dir, "d/.netron-ZZ"+letters[2:]+".tmp"), "being written")
	again, err := file.OpenStore(dir, file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	wantFiles(t, "after the store was opened", dir, map[string]string{
		"d/a": "x", "d/.netron-ZZ" + letters[2:] + ".tmp": "being written", ".netron-short.tmp": "old", "x.tmp": "old",
	})
}
