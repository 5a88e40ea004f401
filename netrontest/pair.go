package netrontest

import (
	"context"
	"errors"

	"github.com/d-e-v-grid/netron"
)

// Addresses of a [Pair].
const (
	serverAddr = "server:8080"
	clientAddr = "client:8080"
)

// Pair is two nodes and one connection between them. The methods of its [Link] are
// the faults.
type Pair struct {
	*Link

	// Network has the two hosts, "server" and "client". Both nodes listen, at port
	// 8080, so that either can dial the other again.
	Network *Network

	Server, Client *Node

	// ToServer is the server as the client sees it, and ToClient the client as the
	// server does: the two ends of the connection that the client has dialled.
	ToServer, ToClient *netron.Peer
}

// NewPair returns a connected pair without services, unless an option exposes
// some. Both nodes are closed when the test ends. What goes wrong ends the test.
func NewPair(t TB, opts ...Option) *Pair {
	t.Helper()
	n := new(Network)
	p := &Pair{Link: n.Link(serverAddr, clientAddr), Network: n}
	p.Server = n.Start(t, serverAddr, opts...)
	p.Client = n.Start(t, clientAddr, opts...)
	var err error
	p.ToServer, p.ToClient, err = connect(p.Client, p.Server)
	if err != nil {
		t.Fatalf("netrontest: connect the pair: %v", err)
	}
	return p
}

// connect returns both ends of a connection of two nodes that had none.
func connect(client, server *Node) (toServer, toClient *netron.Peer, err error) {
	ctx := context.Background() // dials and calls have their own limits
	toServer, err = client.Dial(ctx, server.Addr())
	if err != nil {
		return nil, nil, err
	}
	// The server may learn of the client after the dial has returned, but before it
	// answers anything.
	if _, err := toServer.Service(ctx, "netrontest"); err != nil && netron.CodeOf(err) != netron.NotFound {
		return nil, nil, err
	}
	if toClient = server.Peer(client.ID()); toClient == nil {
		return nil, nil, errors.New("the connection is gone")
	}
	return toServer, toClient, nil
}
