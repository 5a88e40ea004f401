# `make` prints this file's targets; each is one command that needs no other.

GO       ?= go
FUZZTIME ?= 30s

# Linters and generators are pinned in a module of their own, so that programs
# which import this library never see them.
TOOL = $(GO) tool -modfile=tools/go.mod

# Systems that the library must build for besides the one that runs the tests:
# without epoll, with 32 bits, with other system calls.
PLATFORMS = darwin/arm64 windows/amd64 linux/386 linux/arm freebsd/amd64

.DEFAULT_GOAL := help
.PHONY: help demo build test race lint fmt fuzz bench cover generate check-generate cross

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## run the guided tour: typed calls, errors and callbacks in one process; needs only Go
	@$(GO) run ./cmd/netron demo

build: ## compile all packages, and the command into bin/netron
	$(GO) build ./...
	$(GO) build -o bin/netron ./cmd/netron

test: ## run all tests; installs redis-server where it is missing
	@tools/ensure-redis.sh
	@$(GO) test ./...

race: ## run all tests in random order under the race detector; installs gcc too where it is missing
	@tools/ensure-cc.sh
	@tools/ensure-redis.sh
	@CGO_ENABLED=1 $(GO) test -race -shuffle=on ./...

lint: ## check style, formatting and common mistakes
	$(TOOL) golangci-lint run ./...

fmt: ## format all Go files
	$(TOOL) golangci-lint fmt ./...

fuzz: ## run each fuzz target for FUZZTIME (default 30s; 1000000x counts executions)
	@GO='$(GO)' tools/fuzz.sh '$(FUZZTIME)'

bench: ## measure everything that the README promises, and print it beside the promise
	@$(GO) run ./cmd/netron bench

cover: ## print the test coverage of each package and the total
	@tools/ensure-redis.sh
	@$(GO) test -coverprofile=coverage.out ./...
	@$(GO) tool cover -func=coverage.out | awk 'END { print "total:", $$NF, "of statements" }'

generate: ## write the generated code anew, with the pinned generators
	$(GO) generate ./...

check-generate: ## fail if generated code is not what its source says
	@GO='$(GO)' tools/check-generate.sh

cross: ## compile and vet for the other platforms
	@status=0; for p in $(PLATFORMS); do \
		echo "$(GO) vet, $$p"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 $(GO) vet ./... || status=1; \
	done; exit $$status
