package file

import (
	"io/fs"
	"path/filepath"
	"strings"
	"unicode"
)

const (
	maxNameBytes = 1024
	maxPartBytes = 255 // what file systems take between slashes
)

// isName reports whether a file of a store may have the name; see the package comment.
func isName(name string) bool {
	if len(name) > maxNameBytes || name == "." || !fs.ValidPath(name) {
		return false
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || unicode.IsControl(r) }) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxPartBytes || strings.HasPrefix(strings.ToLower(part), tempPrefix) {
			return false
		}
	}
	_, err := filepath.Localize(name) // reserved names
	return err == nil
}
