//go:build !linux

package bench

import "time"

func processUsage(int) (cpu time.Duration, rss int64) { return 0, 0 }
