// Package stream has what streams are to those who use them: the streams of bytes and of
// items that methods take and return.
//
// Most programs need no name of this package. A method streams by its signature, on both
// sides alike:
//
//	func (m *Market) Prices(ctx context.Context, symbol string) iter.Seq2[Price, error]
//	func (f *Files) Download(ctx context.Context, name string) (io.Reader, error)
//	func (f *Files) Upload(ctx context.Context, name string, body io.Reader) (int64, error)
//
// What may stand there as a parameter or a result:
//
//   - [iter.Seq2] of items and errors. The error ends the sequence.
//   - [iter.Seq] and channels of items. These have no place for an error: a reader of one that
//     fails sees it end, see below.
//   - [io.Reader] and [io.ReadCloser], bytes in chunks as they were written.
//   - [*Duplex], both directions at once.
//
// A sequence is used once, by one goroutine. A reader that breaks off releases the other
// side: the loop that produces there ends, and so does the context of a method. What a method has
// returned is closed at the end, if it can be; what a caller passes stays the caller's. A writer
// goes on only as far as its reader has read, and some 256 KiB.
//
// Of a stream that fails the reader learns why: errors travel as those of calls do. Where a
// method takes a sequence or channel without errors, and the stream fails, its caller gets the
// error in place of the result, and its context ends; a caller who asked for such a result
// only finds it ended early.
//
// Bytes need not be copied: [Reader.Next] lends what came, and [Writer.Reserve] gives the
// memory that is sent, see [Bytes].
package stream
