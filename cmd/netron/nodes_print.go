package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/d-e-v-grid/netron/discover"
)

// nodePrinter prints nodes and what becomes of them, and remembers what it has printed.
type nodePrinter struct {
	*env
	service  string // a query: only nodes that offer it; empty for all
	asJSON   bool
	nodes    map[string]string         // by id, as JSON
	services map[discover.Service]bool // that somebody offers
}

func newNodePrinter(e *env, service string, asJSON bool) *nodePrinter {
	return &nodePrinter{env: e, service: service, asJSON: asJSON, nodes: make(map[string]string), services: make(map[discover.Service]bool)}
}

// print prints the nodes there are.
func (p *nodePrinter) print(registry *discover.Registry) error {
	nodes := registry.Nodes()
	if p.service != "" {
		nodes = registry.Find(p.service)
	}
	for i := range nodes {
		p.nodes[nodes[i].ID] = toJSONLine(describeNode(&nodes[i]))
		for _, s := range nodes[i].Services {
			p.services[s] = true
		}
		if p.asJSON {
			fmt.Fprintln(p.stdout, p.nodes[nodes[i].ID])
		}
	}
	if p.asJSON {
		return nil
	}
	if len(nodes) == 0 {
		fmt.Fprintln(p.stderr, "there are no such nodes")
	}
	table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tURL\tZONE\tWEIGHT\tSINCE\tSUSPECT\tSERVICES")
	for i := range nodes {
		n := &nodes[i]
		weight, since, suspect := "", "", ""
		if n.Weight > 0 {
			weight = strconv.Itoa(n.Weight)
		}
		if !n.Started.IsZero() {
			since = n.Started.Format(time.DateTime)
		}
		if n.Suspect {
			suspect = "suspect"
		}
		for _, column := range []string{n.ID, n.URL(), n.Zone, weight, since, suspect} {
			fmt.Fprintf(table, "%s\t", cmp.Or(printable(column), "-"))
		}
		fmt.Fprintln(table, serviceList(n))
	}
	return table.Flush()
}

// event prints what has become of a node or a service, unless that was printed before.
func (p *nodePrinter) event(event discover.Event) {
	n := &event.Node
	about := ""
	switch event.Kind {
	case discover.NodeJoined, discover.NodeChanged, discover.NodeLeft:
		if !p.note(n, event.Kind != discover.NodeLeft) {
			return
		}
		about = printable(n.ID) + " " + printable(n.URL())
		if event.Kind != discover.NodeLeft {
			about += details(n)
		}
	case discover.ServiceAvailable, discover.ServiceUnavailable:
		if !p.noteService(event.Service, event.Kind == discover.ServiceAvailable) {
			return
		}
		about = printable(event.Service.QualifiedName()) + " by " + printable(n.ID)
	case discover.EventsLost:
		about = strconv.FormatUint(event.Lost, 10)
	}
	if p.asJSON {
		fmt.Fprintln(p.stdout, toJSONLine(describeEvent(&event)))
		return
	}
	fmt.Fprintf(p.stdout, "%s  %-19s  %s\n", time.Now().Format(time.TimeOnly), event.Kind, about)
}

// note remembers what became of a node, and reports whether it is to be printed.
func (p *nodePrinter) note(n *discover.Node, isThere bool) bool {
	before, was := p.nodes[n.ID]
	if !isThere || (p.service != "" && !n.Offers(p.service)) {
		delete(p.nodes, n.ID)
		return was
	}
	p.nodes[n.ID] = toJSONLine(describeNode(n))
	return p.nodes[n.ID] != before
}

// noteService does the same for a service.
func (p *nodePrinter) noteService(s discover.Service, isThere bool) bool {
	only := discover.Node{Services: []discover.Service{s}}
	if p.services[s] == isThere || (p.service != "" && !only.Offers(p.service)) {
		return false
	}
	if isThere {
		p.services[s] = true
	} else {
		delete(p.services, s)
	}
	return true
}

// details returns what a line about a node says besides where it is.
func details(n *discover.Node) string {
	s := ""
	if n.Zone != "" {
		s += ", zone " + printable(n.Zone)
	}
	if n.Weight > 0 {
		s += ", weight " + strconv.Itoa(n.Weight)
	}
	if n.Suspect {
		s += ", suspect"
	}
	return s + ": " + serviceList(n)
}

func serviceList(n *discover.Node) string {
	names := make([]string, len(n.Services))
	for i, s := range n.Services {
		names[i] = printable(s.QualifiedName())
	}
	return cmp.Or(strings.Join(names, ", "), "-")
}

// printable quotes what would do something to a terminal: anybody may have written it.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// nodeObject is a node as JSON.
type nodeObject struct {
	ID       string             `json:"id"`
	URL      string             `json:"url"`
	Zone     string             `json:"zone,omitempty"`
	Weight   int                `json:"weight,omitempty"`
	Services []discover.Service `json:"services"`
	Metadata map[string]string  `json:"metadata,omitempty"`
	Instance string             `json:"instance,omitempty"`
	Started  string             `json:"started,omitempty"`
	Suspect  bool               `json:"suspect,omitempty"`
}

func describeNode(n *discover.Node) *nodeObject {
	o := &nodeObject{
		ID: n.ID, URL: n.URL(), Zone: n.Zone, Weight: n.Weight, Services: n.Services,
		Metadata: n.Metadata, Instance: n.Instance, Suspect: n.Suspect,
	}
	if !n.Started.IsZero() {
		o.Started = n.Started.UTC().Format(time.RFC3339Nano) // also of a year that JSON would refuse
	}
	return o
}

// eventObject is an event as JSON.
type eventObject struct {
	Event   string            `json:"event"`
	At      time.Time         `json:"at"`
	Node    *nodeObject       `json:"node,omitempty"`
	Service *discover.Service `json:"service,omitempty"`
	Lost    uint64            `json:"lost,omitempty"`
}

func describeEvent(event *discover.Event) *eventObject {
	o := &eventObject{Event: event.Kind.String(), At: time.Now().UTC(), Lost: event.Lost}
	if event.Kind != discover.EventsLost {
		o.Node = describeNode(&event.Node)
	}
	if event.Service.Name != "" {
		o.Service = &event.Service
	}
	return o
}

func toJSONLine(v any) string {
	line, err := json.Marshal(v)
	if err != nil {
		panic("BUG: strings, numbers and a time of now are no JSON: " + err.Error())
	}
	return string(line)
}
