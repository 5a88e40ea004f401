//go:build !linux

package bench

import "os/exec"

// bindToThis does nothing: only Linux can.
func bindToThis(*exec.Cmd) {}
