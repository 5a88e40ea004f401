package netron

// DiscoveryHolds returns how many clients of Find, connections and holders of connections a
// node has.
func (n *Node) DiscoveryHolds() (clients, conns, users int) {
	d := n.discovery
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.clients), len(d.conns), len(d.users)
}
