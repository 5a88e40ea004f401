package bench

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// ticksPerSecond is the unit of CPU times under /proc, the same on every Linux
// that Go runs on.
const ticksPerSecond = 100

// processUsage returns the CPU time and the resident memory in bytes of a process,
// zeros if it cannot be read.
func processUsage(pid int) (cpu time.Duration, rss int64) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	// The second field is the name in parentheses, which may hold anything.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, 0
	}
	fields := bytes.Fields(b[i+1:]) // from the third field, state
	const utime, stime, rssPages = 14 - 3, 15 - 3, 24 - 3
	if len(fields) <= rssPages {
		return 0, 0
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(string(fields[i]), 10, 64) // zero if it is none
		return n
	}
	cpu = time.Duration(number(utime)+number(stime)) * time.Second / ticksPerSecond
	return cpu, number(rssPages) * int64(os.Getpagesize())
}
