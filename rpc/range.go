package rpc

import "github.com/Masterminds/semver/v3"

// query is what a caller who asks for a service wrote: a name, and which of its
// versions (protocol section 10.2).
type query struct {
	qualified string // as it was written
	name      string
	version   string              // "" or latest for the highest release
	versions  *semver.Constraints // nil unless version is a range
}

// parseQuery reads name, name@version or name@range. A version is exact if it is
// complete, as 1.2.0 is; everything else is a range, also 1.2, which means 1.2.x.
// Mistakes are of code [InvalidArgument].
func parseQuery(qualified string) (query, error) {
	if len(qualified) > maxNameBytes {
		return query{}, Errorf(InvalidArgument, "rpc: service name of %d bytes, limit %d", len(qualified), maxNameBytes)
	}
	q := query{qualified: qualified}
	q.name, q.version = splitName(qualified)
	if q.version == "" || q.version == latest {
		return q, nil
	}
	if _, err := semver.StrictNewVersion(q.version); err == nil {
		return q, nil
	}
	versions, err := semver.NewConstraint(q.version)
	if err != nil {
		return query{}, Errorf(InvalidArgument, "rpc: %q of service %q is neither a version nor a range of versions: %w", shown(q.version), shown(q.name), err)
	}
	q.versions = versions
	return q, nil
}

// admits reports whether a service of this version may be what the query asks for.
// Only ranges look at it: what was asked for by an exact version was found by it.
func (q *query) admits(version string) bool {
	if q.versions == nil {
		return true
	}
	v, err := semver.StrictNewVersion(version)
	return err == nil && q.versions.Check(v)
}

// lookUp finds what a query asks for among services by their qualified names, nil if
// there is none: the service of an exact version; the highest that a range admits;
// or without either the one without a version, else the highest release. Ranges admit
// prereleases only if they name one, and never a service without a version.
//
// Protocol section 10.2.
func lookUp[S any](services map[string]*S, q query) *S {
	if q.version != "" && q.version != latest {
		// Also for a range: peers of version 0.6 may have versions that are not complete.
		if s := services[joinName(q.name, q.version)]; s != nil || q.versions == nil {
			return s
		}
	} else if s := services[q.name]; s != nil {
		return s
	}
	var best *S
	var bestKey string
	var bestVersion *semver.Version
	for key, s := range services {
		name, version := splitName(key)
		if name != q.name {
			continue
		}
		v, err := semver.StrictNewVersion(version)
		if err != nil || !q.admitsParsed(v) {
			continue
		}
		// Versions that differ in their build metadata alone are equal: the key decides,
		// so that the answer is always the same.
		if best != nil {
			if c := v.Compare(bestVersion); c < 0 || (c == 0 && key < bestKey) {
				continue
			}
		}
		best, bestKey, bestVersion = s, key, v
	}
	return best
}

// admitsParsed reports whether the highest of several versions may be this one.
func (q *query) admitsParsed(v *semver.Version) bool {
	if q.versions == nil {
		return v.Prerelease() == ""
	}
	return q.versions.Check(v)
}
