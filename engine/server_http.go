package engine

import (
	"net"
	"net/http"
	"time"
)

// ServeHTTP upgrades a request of an existing [http.Server], so that WebSocket
// can share a listener with other handlers. Requests that are refused get a
// plain HTTP answer. The path is that of the request: strip prefixes outside.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 1 || r.ProtoMinor < 1 {
		s.refuseHTTP(w, refuse(http.StatusHTTPVersionNotSupported, "HTTP/1.1 is required"))
		return
	}
	req := &Request{Header: r.Header.Clone(), Host: r.Host, TLS: r.TLS}
	req.setURL(r.URL)
	refusal := req.checkFields(r.Method)
	if refusal == nil && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) {
		refusal = refuse(http.StatusBadRequest, "an upgrade request has no body")
	}
	if refusal == nil && r.RequestURI == "*" {
		refusal = refuse(http.StatusBadRequest, "malformed request target")
	}
	if refusal == nil {
		refusal = s.cfg.checkAccess(req)
	}
	var answer []byte
	if refusal == nil {
		answer, refusal = upgradeAnswer(req.Header.Get("Sec-Websocket-Key"))
	}
	if refusal == nil && s.isStopped() {
		refusal = refuse(http.StatusServiceUnavailable, "shutting down")
	}
	if refusal != nil {
		s.refuseHTTP(w, refusal)
		return
	}
	s.hijack(w, req, answer)
}

// hijack takes the socket over from net/http and answers.
func (s *Server) hijack(w http.ResponseWriter, req *Request, answer []byte) {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.limits.log.Error("engine: hijack", "err", err)
		s.refuseHTTP(w, refuse(http.StatusInternalServerError, "this server cannot upgrade"))
		return
	}
	full, ok := s.admit(nc)
	if !ok {
		nc.Close()
		return
	}
	defer s.wg.Done() // admit has added it
	defer s.recoverHandshake(nc)
	err = errRefused
	if full {
		s.refuse(nc, refuse(http.StatusServiceUnavailable, "too many connections"))
	} else {
		early := make([]byte, rw.Reader.Buffered())
		_, _ = rw.Reader.Read(early) // cannot fail: they are in the buffer
		err = s.answerHijacked(nc, req, answer, early)
	}
	if err != nil {
		s.forget(nc)
		nc.Close()
	}
}

func (s *Server) answerHijacked(nc net.Conn, req *Request, answer, early []byte) error {
	deadline := time.Time{}
	if d := s.cfg.handshakeTimeout(); d > 0 {
		deadline = time.Now().Add(d)
	}
	if err := nc.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := nc.Write(answer); err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return s.adopt(nc, newConn(nc, false, s.limits, req, early))
}

func (s *Server) refuseHTTP(w http.ResponseWriter, r *refusal) {
	s.refused.Add(1)
	for _, h := range r.header {
		w.Header().Set(h[0], h[1])
	}
	w.Header().Set("Connection", "close")
	http.Error(w, r.text, r.status)
}

var _ http.Handler = (*Server)(nil)
