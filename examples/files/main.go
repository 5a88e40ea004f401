// Command files has a service that stores files, and a client that sends it one, with progress and a
// checksum, and gets it back.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/stream"
	"github.com/d-e-v-grid/netron/stream/file"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Reports is a service that makes what it streams.
type Reports struct{}

// Lines writes a report line by line, each of them where it is sent from.
func (Reports) Lines(_ context.Context, n int) io.Reader {
	return stream.Bytes(func(_ context.Context, w *stream.Writer) error {
		for i := range n {
			line, err := w.Reserve(32)
			if err != nil {
				return err // nobody reads any more
			}
			if err := w.Commit(len(fmt.Append(line[:0], "line ", i, "\n"))); err != nil {
				return err
			}
		}
		return nil
	})
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp("", "netron-files-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	// Names cannot leave the directory of a store, a file is replaced whole or not at all, and its
	// checksum is taken while it comes.
	served := filepath.Join(dir, "served")
	if err := os.Mkdir(served, 0o700); err != nil {
		return err
	}
	store, err := file.OpenStore(served, file.Config{MaxBytes: 100 << 20})
	if err != nil {
		return err
	}
	defer store.Close()
	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Expose("fileService@1.0.0", store); err != nil {
		return err
	}
	if err := server.Expose("reports@1.0.0", Reports{}); err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		return err
	}
	files, err := netron.Query[file.Client](ctx, peer, "fileService")
	if err != nil {
		return err
	}

	original := filepath.Join(dir, "original.bin")
	if err := os.WriteFile(original, bytes.Repeat([]byte("netron "), 1_000_000), 0o600); err != nil {
		return err
	}
	up, err := files.Upload(ctx, "backup/data.bin", original, func(p file.Progress) {
		if p.Fraction() == 1 {
			fmt.Println("sent:", p.Bytes, "bytes")
		}
	})
	if err != nil {
		return err
	}
	fmt.Printf("stored: %s, %d bytes, SHA-256 %.12s\n", up.Name, up.Size, up.Checksum)
	down, err := files.Download(ctx, "backup/data.bin", filepath.Join(dir, "copy.bin"), nil)
	if err != nil {
		return err
	}
	fmt.Println("the copy is the same:", down.Checksum == up.Checksum)
	_, err = files.DownloadFile(ctx, "../etc/passwd")
	fmt.Println("no way out:", netron.CodeOf(err))

	reports, err := netron.Query[struct {
		Lines func(ctx context.Context, n int) (io.ReadCloser, error)
	}](ctx, peer, "reports")
	if err != nil {
		return err
	}
	report, err := reports.Lines(ctx, 3)
	if err != nil {
		return err
	}
	defer report.Close()
	_, err = io.Copy(os.Stdout, report)
	return err
}
