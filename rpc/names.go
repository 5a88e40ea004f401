package rpc

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/Masterminds/semver/v3"
)

const (
	maxNameBytes   = 255 // of a service name, with its version, and of a member name
	latest         = "*" // the version that asks for the latest release
	versionMark    = "@"
	oldVersionMark = ":" // what peers older than 0.6 wrote; accepted, never written
)

// serviceName is the form of a service's bare name (protocol section 10).
var serviceName = regexp.MustCompile(`^[A-Za-z0-9]+(\.[A-Za-z0-9]+)*$`)

// memberName is the form of a method's or property's name on the wire.
var memberName = regexp.MustCompile(`^[A-Za-z0-9_$]+$`)

// splitName splits "name@version" into its parts; the version is empty if there
// is none.
func splitName(qualified string) (name, version string) {
	name, version, found := strings.Cut(qualified, versionMark)
	if !found {
		name, version, _ = strings.Cut(qualified, oldVersionMark)
	}
	return name, version
}

// joinName is the reverse of splitName, and the key of a service.
func joinName(name, version string) string {
	if version == "" {
		return name
	}
	return name + versionMark + version
}

// parseServiceName checks the name under which a service is exposed.
func parseServiceName(qualified string) (name, version string, err error) {
	if len(qualified) > maxNameBytes {
		return "", "", fmt.Errorf("rpc: service name of %d bytes, limit %d", len(qualified), maxNameBytes)
	}
	name, version = splitName(qualified)
	if !serviceName.MatchString(name) {
		return "", "", fmt.Errorf("rpc: invalid service name %q: want letters and digits, parts joined by dots, then optionally @ and a semantic version", qualified)
	}
	if version == "" {
		if name != qualified {
			return "", "", fmt.Errorf("rpc: service name %q has an empty version", qualified)
		}
		return name, "", nil
	}
	if _, err := semver.StrictNewVersion(version); err != nil {
		return "", "", fmt.Errorf("rpc: version of service %q: %w", qualified, err)
	}
	return name, version, nil
}
