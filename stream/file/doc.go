// Package file moves files over byte streams, with progress, checksums and atomic
// replacement.
//
// A [Store] is a directory that is served; it is exposed as it is. A [Client] is the
// same service as its callers see it, and has [Client.Upload] and [Client.Download] for
// files on their own disk. A [Reader] is what both of them count and hash with.
//
//	store, err := file.OpenStore("/var/lib/uploads", file.Config{})
//	err = node.Expose("fileService@1.0.0", store)
//
//	files, err := netron.Query[file.Client](ctx, peer, "fileService@1.0.0")
//	info, err := files.Upload(ctx, "reports/may.pdf", "/home/ann/may.pdf", nil)
//
// # Replacement
//
// A file is written under a temporary name beside its target, flushed to the disk, and
// renamed. So whoever opens the target gets all of the old file or all of the new one, and
// whatever goes wrong before the renaming leaves the old one as it was. Of two that write
// the same file at a time, the one that is renamed last stays.
//
// # Names
//
// Names of files in a store are paths with slashes as [fs.ValidPath] wants them: relative,
// without "." and "..", in UTF-8. They have at most 1,024 bytes, and 255 between slashes,
// no backslashes and control characters, nothing that the system of the store has no
// file for, and no part that begins with ".netron-", as those of temporary files do. No
// name and no symbolic link leads out of the directory.
//
// # Goroutines and contexts
//
// Everything here may be used concurrently, and no goroutines are started. What moves a
// file ends soon after its context, between two reads; the byte streams of a call end
// with its context, so no read waits longer.
package file
