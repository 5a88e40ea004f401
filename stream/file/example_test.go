package file_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/stream/file"
)

// temporary returns a directory for an example, and what removes it.
func temporary() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

// A service of files that tells how uploads get on. In a program the hook emits an event,
// and node.Expose("fileService@1.0.0", store) makes the service.
func ExampleStore() {
	dir, remove := temporary()
	defer remove()
	store, err := file.OpenStore(dir, file.Config{
		MaxBytes: 1 << 20,
		OnProgress: func(_ context.Context, filename string, p file.Progress) {
			fmt.Printf("upload:progress %s %d of %d\n", filename, p.Bytes, p.Total)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	ctx := context.Background()
	info, err := store.UploadFile(ctx, "notes/may.txt", strings.NewReader("It rains."), &file.Metadata{Size: 9})
	fmt.Println(info.Name, info.Size, info.Checksum[:8], err)
	_, err = store.UploadFile(ctx, "notes/may.txt", strings.NewReader("It"), &file.Metadata{Size: 9})
	fmt.Println(err)
	_, err = store.DownloadFile(ctx, "../may.txt")
	fmt.Println(rpc.CodeOf(err), err)
	// Output:
	// upload:progress notes/may.txt 9 of 9
	// notes/may.txt 9 6f58a762 <nil>
	// upload:progress notes/may.txt 2 of 9
	// file: upload "notes/may.txt": size or checksum differs: want 9 bytes
	// invalid_argument file: download "../may.txt": not a name for a file
}

// Files go there and back. In a program netron.Query[file.Client] returns the client; here
// the store is next to it.
func ExampleClient() {
	dir, remove := temporary()
	defer remove()
	store, err := file.OpenStore(dir, file.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	files := file.Client{UploadFile: store.UploadFile, DownloadFile: store.DownloadFile, StatFile: store.StatFile}

	local, remove := temporary()
	defer remove()
	from, to := filepath.Join(local, "may.txt"), filepath.Join(local, "copy.txt")
	if err := os.WriteFile(from, []byte("It rains."), 0o600); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	show := func(p file.Progress) { fmt.Printf("%.0f%%\n", 100*p.Fraction()) }
	info, err := files.Upload(ctx, "notes/may.txt", from, show)
	fmt.Println("sent", info.Name, info.Size, err)
	info, err = files.Download(ctx, "notes/may.txt", to, show)
	fmt.Println("got", info.Name, info.Size, err)
	content, err := os.ReadFile(to)
	fmt.Println(string(content), err)
	// Output:
	// 100%
	// sent notes/may.txt 9 <nil>
	// 100%
	// got notes/may.txt 9 <nil>
	// It rains. <nil>
}
