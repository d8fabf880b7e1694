# Curfew. "make" alone lists what there is to do; tools/ holds the scripts.

PACKAGE_GROUPS = build check test packages
FUZZTIME ?= 10s
RECORD ?= 10000000
# What holds the record of bench-audit: sqlite or postgresql.
STORE ?= sqlite
# What the race detector is run over in CI: rooms that need no host.
RACE = ./canon ./dsse ./grant ./ledger ./wire/... ./controlplane/...

version := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
go_build = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.Version=$(version)'
# Tally's own tests run first: a counter that is wrong would hide the rest.
tally = go -C tools test ./tally >/dev/null && go -C tools build -buildvcs=false -o "$(CURDIR)/bin/tally" ./tally
programs := $(notdir $(wildcard cmd/*))

SHELL = bash
.SHELLFLAGS = -euo pipefail -c

.PHONY: help build deps generate check test test-vm test-cuts race demo demo-web screenshots bench bench-fleet packages fuzz clean

help: ## list what there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build all programs and the PAM module into bin/
	@tools/deps.sh build
	@mkdir -p bin
	@for p in $(programs); do $(go_build) -o bin/$$p ./cmd/$$p || exit 1; done
	@if [ -x pammod/build.sh ]; then pammod/build.sh bin/pam_curfew.so; fi

deps: ## install the Debian packages that build, check and test need
	@tools/deps.sh $(PACKAGE_GROUPS)

generate: ## write generated code again: protobuf and BPF
	@tools/deps.sh build
	@tools/generate.sh

check: ## lint, formats, C analysers, units, links in the docs
	@tools/deps.sh build check
	@tools/check.sh

# An emulated machine needs a processor to itself: its grants last half a minute.
test: ## install what tests need, build, and run every test, those on hosts as root
	@tools/deps.sh build test packages
	@$(MAKE) --no-print-directory build
	@$(tally)
	@{ go test -json -timeout 40m $$(go list ./... | grep -v /test/vm$$) || rc=1; go test -json -timeout 40m ./test/vm || rc=1; exit $${rc:-0}; } 2>&1 | bin/tally -o bin/tests.txt

test-vm: ## try each kernel that we support, and packages, in emulated machines (root; an hour and a half)
	@tools/deps.sh build test packages
	@$(MAKE) --no-print-directory build
	@$(tally)
	@go test -json -count=1 -timeout 180m ./test/vm -all 2>&1 | bin/tally

test-cuts: ## cut the power 40 times while dpkg installs, upgrades and removes (root; a quarter of an hour)
	@tools/deps.sh build test packages
	@$(tally)
	@go test -json -count=1 -timeout 60m ./packaging -run TestLifeOnHosts -cuts 40 | bin/tally

race: ## run the tests that need no host under the race detector
	@$(tally)
	@go test -race -json -timeout 40m $(RACE) 2>&1 | bin/tally

demo: ## play the main job on two hosts, with the real programs (root)
	@tools/deps.sh build test
	@$(MAKE) --no-print-directory build
	@go run ./test/demo

demo-web: ## leave a filled control plane running, with links to its pages
	@go run ./test/pages

screenshots: ## take the pictures of the pages in docs/screenshots again
	@tools/deps.sh test
	@CURFEW_SCREENSHOTS=$(CURDIR)/docs/screenshots go test ./test/pages -count=1 -run TestEveryPage

bench: ## measure what docs/performance.md reports
	@tools/deps.sh build test bench
	@$(MAKE) --no-print-directory build
	@go run ./test/bench
	@go test -run '^$$' -bench 'Store|Events|Outbox' -benchtime 1x ./test/bench

bench-audit: ## fill a record on STORE with RECORD entries, and search it (10 million: 5 GB, half an hour)
	@go test -run '^$$' -bench Record -benchtime 1x -timeout 3h ./controlplane/store -record $(RECORD) -record-on $(STORE)

bench-fleet: ## connect HOSTS (1000) agents to one server, and measure what that takes
	@tools/deps.sh build test
	@$(MAKE) --no-print-directory build
	@go test -timeout 2h -run '^$$' -bench Fleet -benchtime 1x ./test/pair -hosts $(or $(HOSTS),1000)

packages: ## build .deb and .rpm of every program into dist/
	@tools/deps.sh build
	@packaging/build.sh dist

fuzz: ## run each fuzz test for FUZZTIME (10s)
	@tools/fuzz.sh $(FUZZTIME)

clean: ## remove what was built here; caches outside stay
	@rm -rf bin dist
