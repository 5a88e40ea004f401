package discover

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/d-e-v-grid/netron/internal/code"
)

// The fields of a node's hash. The first three are those of TypeScript peers, which leave
// out a node that lacks one of them; the others are ours, which they ignore (protocol
// section 11.1).
const (
	fieldAddress = iota
	fieldServices
	fieldTimestamp
	fieldScheme
	fieldZone
	fieldWeight
	fieldMetadata
	fieldInstance
	fieldStarted
	fieldCount

	ownFields = fieldScheme // the first that TypeScript peers do not know
)

var fieldNames = [fieldCount]string{"address", "services", "timestamp", "scheme", "zone", "weight", "metadata", "instance", "started"}

// fields are the values of a hash, empty where it has none.
type fields [fieldCount]string

// reading is what a store has of a node.
type reading struct {
	fields fields
	ttl    time.Duration // how long its heartbeat will last, 0 if there is none
}

// exists reports whether there is a hash.
func (f *fields) exists() bool { return *f != fields{} }

// size returns the number of bytes.
func (f *fields) size() int {
	n := 0
	for _, v := range f {
		n += len(v)
	}
	return n
}

// encode returns the fields of a node in normal form, but for the timestamp.
func encode(n *Node, cfg *Config) (fields, error) {
	services := n.Services
	if services == nil {
		services = []Service{}
	}
	list, err := json.Marshal(services)
	if err != nil {
		return fields{}, err
	}
	f := fields{
		fieldAddress:  n.Address,
		fieldServices: string(list),
		fieldScheme:   n.Scheme,
		fieldZone:     n.Zone,
		fieldInstance: n.Instance,
		fieldStarted:  milliseconds(n.Started),
	}
	if n.Weight != 0 {
		f[fieldWeight] = strconv.Itoa(n.Weight)
	}
	if len(n.Metadata) > 0 {
		metadata, err := json.Marshal(n.Metadata)
		if err != nil {
			return fields{}, err
		}
		f[fieldMetadata] = string(metadata)
	}
	if size := f.size(); size > cfg.maxRecordBytes() {
		return fields{}, errorf(code.InvalidArgument, "the record of node %s has %d bytes, at most %d are allowed", n.ID, size, cfg.maxRecordBytes())
	}
	return f, nil
}

// decode returns the node of a record. An error says why there is none; odd counts what
// was left out of the node, because it makes no sense.
func decode(id string, f *fields, cfg *Config) (n *Node, odd int, err error) {
	switch {
	case !f.exists():
		return nil, 0, errorf(code.DataLoss, "there is no record")
	case f.size() > cfg.maxRecordBytes():
		return nil, 0, errorf(code.DataLoss, "the record has %d bytes, at most %d are allowed", f.size(), cfg.maxRecordBytes())
	case f[fieldAddress] == "" || f[fieldServices] == "" || f[fieldTimestamp] == "":
		return nil, 0, errorf(code.DataLoss, "the record has no address, no services or no timestamp")
	}
	n = &Node{ID: id, Instance: f[fieldInstance], Zone: f[fieldZone], Started: parseTime(f[fieldStarted]), Updated: parseTime(f[fieldTimestamp])}
	if n.Scheme, n.Address, err = splitAddress(f[fieldAddress]); err != nil {
		return nil, 0, err
	}
	if n.Services, odd, err = decodeServices(f[fieldServices], cfg.maxServices()); err != nil {
		return nil, 0, err
	}
	switch s := f[fieldScheme]; {
	case s == schemePlain || s == schemeSecure:
		n.Scheme = s
	case s != "":
		odd++
	}
	if n.Scheme == "" {
		n.Scheme = schemePlain
	}
	if len(n.Zone) > maxZoneBytes || !utf8.ValidString(n.Zone) {
		n.Zone = ""
		odd++
	}
	if w := f[fieldWeight]; w != "" {
		if n.Weight, err = strconv.Atoi(w); err != nil || n.Weight < 0 || n.Weight > maxWeight {
			n.Weight = 0
			odd++
		}
	}
	if m := f[fieldMetadata]; m != "" {
		if err := json.Unmarshal([]byte(m), &n.Metadata); err != nil || !utf8.ValidString(m) {
			n.Metadata = nil
			odd++
		}
	}
	return n, odd, nil
}

// decodeServices reads the list that TypeScript peers write. An element that is no service
// is left out.
func decodeServices(list string, most int) (services []Service, odd int, err error) {
	var elements []json.RawMessage
	if err := json.Unmarshal([]byte(list), &elements); err != nil {
		return nil, 0, &Error{Code: code.DataLoss, Message: "the services are no list", cause: err}
	}
	if len(elements) > most {
		return nil, 0, errorf(code.DataLoss, "there are %d services, at most %d are allowed", len(elements), most)
	}
	services = make([]Service, 0, len(elements))
	for _, e := range elements {
		var s Service
		if err := json.Unmarshal(e, &s); err != nil || !utf8.Valid(e) || !isService(s) {
			odd++
			continue
		}
		services = append(services, s)
	}
	return sorted(services), odd, nil
}

// The kinds of announcements (protocol section 11.1).
const (
	typeRegistered   = "NODE_REGISTERED"
	typeUpdated      = "NODE_UPDATED"
	typeDeregistered = "NODE_DEREGISTERED"
)

// announcement is what nodes say on the channel. Whoever hears it reads what the store
// has: others may be wrong, or mean somebody else (protocol section 11.3).
type announcement struct {
	Type      string    `json:"type"`
	NodeID    string    `json:"nodeId"`
	Address   string    `json:"address"`
	Services  []Service `json:"services"`
	Timestamp int64     `json:"timestamp"`
	Instance  string    `json:"instance,omitempty"` // ours
}

func announce(kind string, n *Node, at time.Time) announcement {
	a := announcement{Type: kind, NodeID: n.ID, Address: n.Address, Services: n.Services, Timestamp: at.UnixMilli(), Instance: n.Instance}
	if a.Services == nil {
		a.Services = []Service{}
	}
	return a
}

// parseAnnouncement reads what is needed of an announcement: no address, no services.
func parseAnnouncement(message string, cfg *Config) (announcement, error) {
	if len(message) > cfg.maxRecordBytes()+maxIDBytes {
		return announcement{}, errorf(code.DataLoss, "an announcement of %d bytes", len(message))
	}
	var a struct {
		Type     string `json:"type"`
		NodeID   string `json:"nodeId"`
		Instance string `json:"instance"`
	}
	if err := json.Unmarshal([]byte(message), &a); err != nil {
		return announcement{}, &Error{Code: code.DataLoss, Message: "an announcement is no JSON", cause: err}
	}
	switch a.Type {
	case typeRegistered, typeUpdated, typeDeregistered:
	default:
		return announcement{}, errorf(code.DataLoss, "an announcement of the type %.50q", a.Type)
	}
	if !isID(a.NodeID) {
		return announcement{}, errorf(code.DataLoss, "an announcement of the node %.300q", a.NodeID)
	}
	return announcement{Type: a.Type, NodeID: a.NodeID, Instance: a.Instance}, nil
}

func milliseconds(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// parseTime reads milliseconds since 1970, zero if that is not what they are.
func parseTime(ms string) time.Time {
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || n <= 0 || n > 1<<53 {
		return time.Time{}
	}
	return time.UnixMilli(n)
}
