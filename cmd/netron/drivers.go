package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/d-e-v-grid/netron"
)

// addDrivers adds the flags that choose drivers on both sides.
func (b *benchFlags) addDrivers(flags *pflag.FlagSet) {
	flags.StringVar(&b.driver, "driver", "auto", "driver of the server: epoll, std or auto")
	flags.StringVar(&b.dialDriver, "dial-driver", "auto", "driver of the client: epoll, std or auto")
	flags.IntVar(&b.pollers, "pollers", 0, "pollers of the epoll driver, on both sides; 0: its default")
}

// client returns the configuration of the client's node, and how it dials.
func (b *benchFlags) client() (netron.Config, []netron.DialOption, error) {
	driver, err := netron.ParseDriver(b.dialDriver)
	if err != nil {
		return netron.Config{}, nil, usagef("%v", err)
	}
	if _, err := netron.ParseDriver(b.driver); err != nil {
		return netron.Config{}, nil, usagef("%v", err)
	}
	return netron.Config{Pollers: b.pollers}, []netron.DialOption{netron.DialDriver(driver)}, nil
}

// serverFlags returns the flags of a server process.
func (b *benchFlags) serverFlags() []string {
	return []string{"--driver", b.driver, "--pollers", strconv.Itoa(b.pollers)}
}

// String says which drivers a run uses.
func (b *benchFlags) String() string {
	return fmt.Sprintf("server driver %s, client driver %s", b.driver, b.dialDriver)
}
