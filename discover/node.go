package discover

import (
	"cmp"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/d-e-v-grid/netron/internal/code"
)

// Node is a process that offers services. What a [Registry] hands out is shared and must
// not be changed; [Node.Clone] makes a copy that may.
type Node struct {
	// ID is the Netron id, unique among the nodes of a prefix. At most 256 bytes.
	ID string

	// Address is where the node listens, as host:port. What is given to
	// [Registry.Register] may begin with ws:// or wss://, which sets Scheme.
	Address string

	// Scheme is "ws" or "wss". Empty means "ws".
	Scheme string

	// Services are what the node offers, sorted by name, then version, each once.
	Services []Service

	// Metadata is for whoever wants it.
	Metadata map[string]string

	// Zone says which nodes are near each other, for those who prefer near ones.
	Zone string

	// Weight is the share of work that the node wants, compared with others. Zero means
	// that it does not say. At most 1,000,000.
	Weight int

	// Instance changes whenever a process registers. Empty for TypeScript peers. It is
	// ignored by [Registry.Register].
	Instance string

	// Started is when the node was registered, and Updated when its record was written
	// the last time that it changed: by the clock of that node, so only for people. They
	// are ignored by [Registry.Register].
	Started, Updated time.Time

	// Suspect says that the heartbeat of the node is missing. It is gone if none comes.
	Suspect bool
}

// Service is the name of a service and its version, empty if it has none.
type Service struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// QualifiedName returns name@version, or the name of a service without a version.
func (s Service) QualifiedName() string {
	if s.Version == "" {
		return s.Name
	}
	return s.Name + "@" + s.Version
}

// ParseService splits a qualified name.
func ParseService(qualified string) Service {
	name, version := splitName(qualified)
	return Service{Name: name, Version: version}
}

const (
	maxIDBytes      = 256
	maxNameBytes    = 255 // of a service name, with its version
	maxAddressBytes = 512
	maxZoneBytes    = 256
	maxWeight       = 1_000_000

	schemePlain  = "ws"
	schemeSecure = "wss"
)

// URL returns the address with its scheme, for who wants to dial.
func (n *Node) URL() string {
	if n.Scheme == "" {
		return schemePlain + "://" + n.Address
	}
	return n.Scheme + "://" + n.Address
}

// Clone returns a copy that shares nothing with n.
func (n *Node) Clone() Node {
	c := *n
	c.Services = slices.Clone(n.Services)
	c.Metadata = maps.Clone(n.Metadata)
	return c
}

// Offers reports whether the node is an answer to a query, as for [Registry.Find].
func (n *Node) Offers(query string) bool {
	q, err := parseQuery(query)
	return err == nil && n.answers(&q)
}

// versions returns the services of that name, which stand side by side.
func (n *Node) versions(name string) []Service {
	from, found := slices.BinarySearchFunc(n.Services, name, func(s Service, name string) int { return strings.Compare(s.Name, name) })
	if !found {
		return nil
	}
	to := from + 1
	for to < len(n.Services) && n.Services[to].Name == name {
		to++
	}
	return n.Services[from:to]
}

// answers reports whether the node has a service that the query asks for.
func (n *Node) answers(q *query) bool {
	return slices.ContainsFunc(n.versions(q.name), func(s Service) bool { return q.admits(s.Version) })
}

// same reports whether two nodes differ in nothing but when they were updated.
func (n *Node) same(m *Node) bool {
	return n.ID == m.ID && n.Address == m.Address && n.Scheme == m.Scheme && n.Zone == m.Zone && n.Weight == m.Weight &&
		n.Instance == m.Instance && n.Started.Equal(m.Started) && n.Suspect == m.Suspect &&
		slices.Equal(n.Services, m.Services) && maps.Equal(n.Metadata, m.Metadata)
}

// normalize brings a node into the form that others see, and returns what is wrong with it.
func (n *Node) normalize(cfg *Config) error {
	if !isID(n.ID) {
		return errorf(code.InvalidArgument, "the id %.200q of a node is not 1 to %d bytes of UTF-8", n.ID, maxIDBytes)
	}
	scheme, address, err := splitAddress(n.Address)
	if err != nil {
		return err
	}
	n.Address = address
	n.Scheme = cmp.Or(scheme, n.Scheme, schemePlain)
	switch {
	case n.Scheme != schemePlain && n.Scheme != schemeSecure:
		return errorf(code.InvalidArgument, "the scheme %.20q of node %s is neither ws nor wss", n.Scheme, n.ID)
	case n.Weight < 0 || n.Weight > maxWeight:
		return errorf(code.InvalidArgument, "the weight %d of node %s is not 0 to %d", n.Weight, n.ID, maxWeight)
	case len(n.Zone) > maxZoneBytes || !utf8.ValidString(n.Zone):
		return errorf(code.InvalidArgument, "the zone %.200q of node %s is not at most %d bytes of UTF-8", n.Zone, n.ID, maxZoneBytes)
	case len(n.Services) > cfg.maxServices():
		return errorf(code.InvalidArgument, "node %s has %d services, at most %d are allowed", n.ID, len(n.Services), cfg.maxServices())
	}
	for _, s := range n.Services {
		if !isService(s) {
			return errorf(code.InvalidArgument, "%.300q is no service", s.QualifiedName())
		}
	}
	for k, v := range n.Metadata {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return errorf(code.InvalidArgument, "metadata %.200q of node %s is not UTF-8", k, n.ID)
		}
	}
	n.Services = sorted(n.Services)
	return nil
}

// sorted sorts services and leaves out repetitions, in place.
func sorted(services []Service) []Service {
	slices.SortFunc(services, func(a, b Service) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
	})
	return slices.Compact(services)
}

func isID(id string) bool { return id != "" && len(id) <= maxIDBytes && utf8.ValidString(id) }

// isService reports whether others can ask for a service.
func isService(s Service) bool {
	return s.Name != "" && len(s.QualifiedName()) <= maxNameBytes && !strings.ContainsAny(s.Name, "@:") &&
		utf8.ValidString(s.Name) && utf8.ValidString(s.Version)
}

// splitAddress checks an address, which is host:port with or without a scheme.
func splitAddress(address string) (scheme, hostport string, err error) {
	hostport = address
	if s, rest, found := strings.Cut(address, "://"); found {
		if s != schemePlain && s != schemeSecure {
			return "", "", errorf(code.InvalidArgument, "the scheme of the address %.200q is neither ws nor wss", address)
		}
		scheme, hostport = s, strings.TrimSuffix(rest, "/")
	}
	host, port, err := net.SplitHostPort(hostport)
	isOdd := func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == '/' || r == '@' || r == utf8.RuneError
	}
	if err != nil || host == "" || port == "" || len(address) > maxAddressBytes || strings.ContainsFunc(hostport, isOdd) {
		return "", "", errorf(code.InvalidArgument, "the address %.200q is not host:port", address)
	}
	if _, err := url.Parse("ws://" + hostport); err != nil {
		return "", "", errorf(code.InvalidArgument, "the address %.200q is not host:port", address)
	}
	return scheme, hostport, nil
}
