package discover

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// maxAnswers is how many answers a snapshot keeps. Others are worked out each time.
const maxAnswers = 1024

// snapshot is the view at one time. All of it is immutable but the answers, which only
// become more: readers load them and take no lock.
type snapshot struct {
	nodes   []*Node // by id, those that are suspect after all others
	trusted int     // how many are not suspect

	mu      sync.Mutex // held to add an answer
	answers atomic.Pointer[map[string]answer]
}

// answer is what a query finds in a snapshot.
type answer struct {
	name  string // of the service
	nodes []*Node
}

func newSnapshot(nodes []*Node) *snapshot {
	slices.SortFunc(nodes, func(a, b *Node) int {
		if a.Suspect != b.Suspect {
			if b.Suspect {
				return -1
			}
			return 1
		}
		return strings.Compare(a.ID, b.ID)
	})
	s := &snapshot{nodes: nodes}
	for s.trusted < len(nodes) && !nodes[s.trusted].Suspect {
		s.trusted++
	}
	s.answers.Store(new(map[string]answer))
	return s
}

// adopt takes over the answers of the snapshot before, but for those about services of
// the nodes that changed.
func (s *snapshot) adopt(before *snapshot, changes []change) {
	answers := maps.Clone(*before.answers.Load())
	if len(answers) == 0 {
		return
	}
	touched := make(map[string]bool)
	for _, c := range changes {
		for _, n := range []*Node{c.before, c.after} {
			if n != nil {
				for _, service := range n.Services {
					touched[service.Name] = true
				}
			}
		}
	}
	maps.DeleteFunc(answers, func(_ string, a answer) bool { return touched[a.name] })
	s.answers.Store(&answers)
}

// lookup returns the nodes that are an answer to a query.
func (s *snapshot) lookup(query string) []*Node {
	if a, ok := (*s.answers.Load())[query]; ok {
		return a.nodes
	}
	return s.search(query)
}

// search works an answer out, and keeps it.
func (s *snapshot) search(query string) []*Node {
	q, err := parseQuery(query)
	if err != nil {
		return nil
	}
	a := answer{name: strings.Clone(q.name)}
	for _, n := range s.nodes {
		if n.answers(&q) {
			a.nodes = append(a.nodes, n)
		}
	}
	a.nodes = slices.Clip(a.nodes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if answers := *s.answers.Load(); len(answers) < maxAnswers {
		more := make(map[string]answer, len(answers)+1)
		maps.Copy(more, answers)
		more[strings.Clone(query)] = a
		s.answers.Store(&more)
	}
	return a.nodes
}

// node returns a node by its id, nil if there is none.
func (s *snapshot) node(id string) *Node {
	for _, part := range [][]*Node{s.nodes[:s.trusted], s.nodes[s.trusted:]} {
		if i, found := slices.BinarySearchFunc(part, id, func(n *Node, id string) int { return cmp.Compare(n.ID, id) }); found {
			return part[i]
		}
	}
	return nil
}

// values copies nodes for those who want values.
func values(nodes []*Node) []Node {
	vs := make([]Node, len(nodes))
	for i, n := range nodes {
		vs[i] = *n
	}
	return vs
}
