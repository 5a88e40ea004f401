package file

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Client is the service of a [Store] as its callers see it: netron.Query fills it in. Made
// of the methods of a Store it works without a network.
type Client struct {
	UploadFile   func(ctx context.Context, filename string, body io.Reader, meta *Metadata) (Info, error)
	DownloadFile func(ctx context.Context, filename string) (io.ReadCloser, error)
	StatFile     func(ctx context.Context, filename string) (Info, error)
	ListFiles    func(ctx context.Context) ([]Info, error)
	RemoveFile   func(ctx context.Context, filename string) error
}

// Upload sends a local file. Progress is told to fn unless it is nil, see [NewReader].
//
// The error wraps [ErrChecksum] if what the service says that it got is not what was sent.
// Errors of the service keep their code.
func (c *Client) Upload(ctx context.Context, filename, localPath string, fn func(Progress)) (Info, error) {
	info, err := c.upload(ctx, filename, localPath, fn)
	if err != nil {
		return Info{}, fmt.Errorf("file: upload from %s: %w", localPath, err)
	}
	return info, nil
}

func (c *Client) upload(ctx context.Context, name, localPath string, fn func(Progress)) (Info, error) {
	f, err := os.Open(localPath)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	local, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	total := int64(-1) // of a pipe
	if local.Mode().IsRegular() {
		total = local.Size()
	}
	r := NewReader(f, total, fn)
	info, err := c.UploadFile(ctx, name, r, &Metadata{Size: max(total, 0)})
	if err != nil {
		return Info{}, err
	}
	return info, verify(r, max(info.Size, 0), info.Checksum)
}

// Download writes a file to localPath, in place of what is there, once it has arrived and
// has size and checksum of what [Store.StatFile] said; the error wraps [ErrChecksum] if not,
// as it may when the file is replaced meanwhile. After any error the old file is what it was.
// Progress is told to fn unless it is nil, see [NewReader].
//
// The directory must exist. What is there must be a regular file or nothing.
func (c *Client) Download(ctx context.Context, filename, localPath string, fn func(Progress)) (Info, error) {
	info, err := c.download(ctx, filename, localPath, fn)
	if err != nil {
		return Info{}, fmt.Errorf("file: download to %s: %w", localPath, err)
	}
	return info, nil
}

func (c *Client) download(ctx context.Context, name, localPath string, fn func(Progress)) (Info, error) {
	localPath = filepath.Clean(localPath)
	root, err := os.OpenRoot(filepath.Dir(localPath))
	if err != nil {
		return Info{}, err
	}
	defer root.Close()
	info, err := c.StatFile(ctx, name)
	if err != nil {
		return Info{}, err
	}
	_, err = replace(ctx, root, filepath.Base(localPath), func(w io.Writer) error {
		body, err := c.DownloadFile(ctx, name)
		if err != nil {
			return err
		}
		defer body.Close()
		return receive(ctx, w, NewReader(body, info.Size, fn), max(info.Size, 0), info.Checksum)
	})
	return info, err
}
