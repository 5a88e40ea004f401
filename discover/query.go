package discover

import (
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/d-e-v-grid/netron/internal/code"
)

// query is what somebody who looks for a service wrote: a name, and which of its versions.
// It means what it means in package rpc (protocol section 10.2): a node is an answer if
// it would find the service by the same words.
type query struct {
	name     string
	version  string              // "" or latest for any release, or the service without a version
	versions *semver.Constraints // nil unless version is a range
}

const latest = "*"

// CheckQuery returns what is wrong with a query, nil if it is a name, name@version, name@*
// or name@range. There are no answers to a query that makes no sense.
func CheckQuery(query string) error {
	_, err := parseQuery(query)
	return err
}

// parseQuery reads a query. A version is exact if it is complete, as 1.2.0 is; everything
// else is a range, also 1.2, which means 1.2.x.
func parseQuery(qualified string) (query, error) {
	if len(qualified) > maxNameBytes {
		return query{}, errorf(code.InvalidArgument, "a query of %d bytes, limit %d", len(qualified), maxNameBytes)
	}
	var q query
	q.name, q.version = splitName(qualified)
	if q.name == "" {
		return query{}, errorf(code.InvalidArgument, "the query %q has no name", qualified)
	}
	if q.version == "" || q.version == latest {
		return q, nil
	}
	if _, err := semver.StrictNewVersion(q.version); err == nil {
		return q, nil
	}
	versions, err := semver.NewConstraint(q.version)
	if err != nil {
		return query{}, &Error{Code: code.InvalidArgument, Message: "the query " + qualified + " asks for neither a version nor a range of versions", cause: err}
	}
	q.versions = versions
	return q, nil
}

// admits reports whether a service of this version is asked for. Ranges admit prereleases
// only if they name one, and never a service without a version.
func (q *query) admits(version string) bool {
	isLatest := q.version == "" || q.version == latest
	switch {
	case version == q.version: // also a range: peers of version 0.6 may have versions that are not complete
		return true
	case isLatest && version == "":
		return true
	case !isLatest && q.versions == nil:
		return false
	}
	v, err := semver.StrictNewVersion(version)
	if err != nil {
		return false
	}
	if isLatest {
		return v.Prerelease() == ""
	}
	return q.versions.Check(v)
}

// splitName splits name@version. Peers older than 0.6 wrote a colon.
func splitName(qualified string) (name, version string) {
	name, version, found := strings.Cut(qualified, "@")
	if !found {
		name, version, _ = strings.Cut(qualified, ":")
	}
	return name, version
}
