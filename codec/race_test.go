//go:build race

package codec_test

// raceEnabled says that allocations cannot be counted.
const raceEnabled = true
