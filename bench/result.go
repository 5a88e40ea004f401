package bench

import "fmt"

// Result is what a run measured. Times are in microseconds, MB are 10^6 bytes.
type Result struct {
	Workload  string  `json:"workload"`
	Conns     int     `json:"conns"`
	Inflight  int     `json:"inflight"`
	Payload   int     `json:"payload"`
	OpsPerS   float64 `json:"ops_per_s"`
	MBPerS    float64 `json:"mb_per_s"`
	P50us     float64 `json:"p50_us"`
	P99us     float64 `json:"p99_us"`
	P999us    float64 `json:"p999_us"`
	ClientCPU float64 `json:"client_cpu_s_per_mop"` // seconds of CPU per million operations
	ServerCPU float64 `json:"server_cpu_s_per_mop"` // likewise, 0 if not measured
	AllocsPer float64 `json:"allocs_per_op"`        // of the client
	SrvRSSMB  float64 `json:"srv_rss_mb"`           // 0 if not measured

	// Of the workload idle, whose operations are dials.
	KiBPerConn   float64 `json:"srv_kib_per_conn,omitempty"`           // resident memory of the server, garbage given back
	KiBUncleaned float64 `json:"srv_kib_per_conn_uncleaned,omitempty"` // likewise, as it was before that
	IdleCPU      float64 `json:"srv_idle_cpu,omitempty"`               // cores that the idle server takes

	// Of the workloads stream and mixed, whose operations are chunks.
	Down      bool    `json:"down,omitempty"`         // from the server to the client
	RawMBPerS float64 `json:"raw_mb_per_s,omitempty"` // the fastest copy over plain TCP in the same run
	OfRaw     float64 `json:"of_raw,omitempty"`       // MBPerS beside that
	ClientGB  float64 `json:"client_cpu_s_per_gb,omitempty"`
	ServerGB  float64 `json:"server_cpu_s_per_gb,omitempty"`
	CallsPerS float64 `json:"calls_per_s,omitempty"` // beside the stream; the latencies are theirs

	Sleepers int64 `json:"sleepers,omitempty"` // sleeping calls that ended during the run

	// Of the workloads discovery-local and discovery-redis, whose server is Redis.
	Nodes      int     `json:"nodes,omitempty"`           // that are registered
	QuestionsS float64 `json:"questions_per_s,omitempty"` // to Redis: calls at the same time share one
}

// String returns the result on one line.
func (r *Result) String() string {
	if r.Workload == "idle" {
		return fmt.Sprintf("idle: %s conns, dialled at %s/s: server %.1f KiB each (%.1f before garbage was given back), %.3f cores while idle, RSS %.0f MB",
			Count(float64(r.Conns)), Count(r.OpsPerS), r.KiBPerConn, r.KiBUncleaned, r.IdleCPU, r.SrvRSSMB)
	}
	if r.Workload == "events" {
		return fmt.Sprintf("events: %d bytes to %d subscribers: %s deliveries/s, p50 %.0f us, p99 %.0f us, p99.9 %.0f us, CPU s per million: client %.2f, server %.2f, %.1f allocs/op of the client, server RSS %.0f MB",
			r.Payload, r.Conns, Count(r.OpsPerS), r.P50us, r.P99us, r.P999us, r.ClientCPU, r.ServerCPU, r.AllocsPer, r.SrvRSSMB)
	}
	if r.Workload == "stream" || r.Workload == "mixed" {
		return r.streamString()
	}
	if r.Nodes > 0 {
		return r.discoveryString()
	}
	s := fmt.Sprintf("%s: %d conns x %d in flight", r.Workload, r.Conns, r.Inflight)
	if r.Payload > 0 {
		s += fmt.Sprintf(", %d bytes", r.Payload)
	}
	return fmt.Sprintf("%s: %s/s, p50 %.0f us, p99 %.0f us, p99.9 %.0f us, CPU s per million: client %.2f, server %.2f, %.1f allocs/op, server RSS %.0f MB",
		s, Count(r.OpsPerS), r.P50us, r.P99us, r.P999us, r.ClientCPU, r.ServerCPU, r.AllocsPer, r.SrvRSSMB)
}

func (r *Result) streamString() string {
	direction := "client to server"
	if r.Down {
		direction = "server to client"
	}
	s := fmt.Sprintf("%s: %s, chunks of %d KiB: %s MB/s", r.Workload, direction, r.Payload>>10, Count(r.MBPerS))
	if r.RawMBPerS > 0 {
		s += fmt.Sprintf(", %.2f of the fastest copy over TCP (%s MB/s)", r.OfRaw, Count(r.RawMBPerS))
	}
	s += fmt.Sprintf(", CPU s per GB: client %.2f, server %.2f, %.2f allocs/chunk, server RSS %.0f MB", r.ClientGB, r.ServerGB, r.AllocsPer, r.SrvRSSMB)
	if r.Inflight > 0 {
		s += fmt.Sprintf("; %d callers beside it: %s calls/s, p50 %.0f us, p99 %.0f us, p99.9 %.0f us", r.Inflight, Count(r.CallsPerS), r.P50us, r.P99us, r.P999us)
	}
	return s
}

func (r *Result) discoveryString() string {
	s := fmt.Sprintf("%s: %d nodes, %d callers: %s/s", r.Workload, r.Nodes, r.Inflight, Count(r.OpsPerS))
	if r.QuestionsS > 0 {
		s += fmt.Sprintf(" by %s questions/s to Redis", Count(r.QuestionsS))
	}
	s += fmt.Sprintf(", p50 %s us, p99 %s us, p99.9 %s us, CPU s per million: %.2f", Micros(r.P50us), Micros(r.P99us), Micros(r.P999us), r.ClientCPU)
	if r.ServerCPU > 0 {
		s += fmt.Sprintf(", Redis %.2f", r.ServerCPU)
	}
	return s + fmt.Sprintf(", %.2f allocs/op", r.AllocsPer)
}

// Micros formats microseconds for people, those below one with their fraction.
func Micros(us float64) string {
	if us > 0 && us < 1 {
		return fmt.Sprintf("%.2f", us)
	}
	return fmt.Sprintf("%.0f", us)
}

// Count formats a number of operations for people: 1,234,567.
func Count(n float64) string {
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
