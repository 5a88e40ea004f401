//go:build !unix

package redistest

import "syscall"

// Systems without these signals refuse them, which fails the test.
const (
	stop    = syscall.Signal(19)
	proceed = syscall.Signal(18)
)
