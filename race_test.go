//go:build race

package netron_test

const raceEnabled = true
