# make          bin/bpfbroker
# make demo     real BPF programs with and without bpfbroker
# make test     all checks and tests
# make help     the other targets
#
# Demo, test, bench, parity, storm, kill and the like need root on Linux ≥ 5.19.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Released versions, which Go 1.26 builds. They aren't in go.mod: nothing of ours
# depends on them.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

FUZZTIME    ?= 60s
STORM       ?= 500000
KILL_ROUNDS ?= 1000
CHAOS       ?= 1000
CROWD       ?= 200
FLOOD       ?= 2000
DIFFERENTIAL ?= 20000
SEED        ?=
BENCH       ?=
PARITY      ?=
TOOLS       ?=
TESTS       ?= ./...

.DEFAULT_GOAL := build
.PHONY: help build deps check test demo bench parity learn scope tools fuzz storm kill chaos attack flood crowd race differential kernel docs govulncheck clean

help:
	@echo 'make build        bin/bpfbroker, static'
	@echo 'make deps         install the Debian packages that demo and tests need'
	@echo 'make demo         real BPF programs with and without bpfbroker'
	@echo 'make check        gofmt, go vet, staticcheck'
	@echo 'make test         check, and all tests; TESTS="./filter ./abi" for some'
	@echo 'make bench        costs of a call, as ratios: docs/results/bench.md'
	@echo 'make parity       the test suite of cilium/ebpf, brokered: docs/results/parity.md'
	@echo 'make learn        the same under the policies that are learned from it: docs/results/learn.md'
	@echo 'make scope        the suite again, with programs for the workload'"'"'s own tasks alone: docs/results/scope.md'
	@echo 'make tools        real tools and programs, each as root and brokered: docs/results/tools.md'
	@echo 'make fuzz         every fuzz target for FUZZTIME=$(FUZZTIME)'
	@echo 'make storm        STORM=$(STORM) calls from targets that take signals'
	@echo 'make kill         KILL_ROUNDS=$(KILL_ROUNDS) rounds of killing targets'
	@echo 'make chaos        CHAOS=$(CHAOS) kills of workers, daemons, workloads under load'
	@echo 'make attack       what a workload can do that has taken its worker over, as text'
	@echo 'make flood        a workload that does its worst, beside another; FLOOD=$(FLOOD) calls'
	@echo 'make crowd        CROWD=$(CROWD) workloads at once'
	@echo 'make race         all tests with the race detector, in the binary, too'
	@echo 'make kernel       end-to-end tests under Debian'"'"'s kernel, in QEMU: docs/results/kernel-6.1.md'
	@echo 'make differential  DIFFERENTIAL=$(DIFFERENTIAL) generated requests, natively and brokered'
	@echo 'make docs         docs/commands.md and docs/confine.md, from the code'
	@echo 'make govulncheck  known vulnerabilities in what we depend on'
	@echo 'make clean        remove bin/ and build/'

# The symbol table stays (no -s): package launch finds a symbol of the runtime there.
build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/bpfbroker

deps:
	bash hack/deps.sh

check:
	@unformatted=$$(gofmt -l .) && [ -z "$$unformatted" ] || { echo "not formatted (gofmt -w repairs): $$unformatted"; exit 1; }
	go vet ./...
	go vet -tags attack ./...
	go run $(STATICCHECK) ./...
	go run $(STATICCHECK) -tags attack ./broker ./internal/sys ./policy ./worker

# One package at a time (-p 1): tests look at what is global to the kernel, such as
# the ids of all BPF objects, and some count processes or cgroups. No cached results
# (-count 1): the kernel isn't among the inputs that go test knows of.
test: deps check build
	go run ./hack/testrun -leaks -- -p 1 -count 1 -timeout 15m $(TESTS)

demo: deps build
	bash demo/run.sh

bench: deps build
	go run ./bench/driver $(BENCH)

parity: build
	go run ./hack/parity $(PARITY)
	go run ./hack/parity -run-args '--policy trusted --net private --worker capability' -report docs/results/parity-capability.md $(PARITY)

learn: build
	go run ./hack/parity -learn docs/results/learn.md $(PARITY)

# Programs for the workload's own tasks alone. Tools that want to see others differ.
scope: build
	go run ./hack/parity -run-args '--policy $(CURDIR)/hack/parity/scoped.yaml --symbols show --net private' -report docs/results/scope-parity.md $(PARITY)
	go test -run '^$$' -bench Guard -count 5 ./guard
	BPFBROKER_RANDOM=20000 go test -v -count 1 -timeout 0 -run '^TestScope' ./e2e

# For the other kind of worker: docs/results/tools-capability.md.
tools: build
	bash hack/deps.sh tools
	go run ./hack/tools $(TOOLS)
	WORKER=capability go run ./hack/tools -report docs/results/tools-capability.md $(TOOLS)

fuzz:
	bash hack/fuzz.sh $(FUZZTIME)

storm: build
	BPFBROKER_STORM=$(STORM) go test -v -count 1 -timeout 0 -run '^TestStorm' ./e2e

kill: build
	BPFBROKER_KILL_ROUNDS=$(KILL_ROUNDS) go test -v -count 1 -timeout 0 -run '^TestKill' ./e2e

chaos: build
	BPFBROKER_CHAOS_ROUNDS=$(CHAOS) go test -v -count 1 -timeout 0 -run '^TestChaos' ./e2e

# It makes builds of its own. -update rewrites the text, e2e/testdata/attack.
attack:
	go test -v -count 1 -run '^Test(TakenOver|GivenAway|WorkerAccess)$$' ./e2e

flood: build
	BPFBROKER_FLOOD=$(FLOOD) go test -v -count 1 -timeout 0 -run '^TestFlood' ./e2e

crowd: build
	BPFBROKER_CROWD=$(CROWD) go test -v -count 1 -timeout 0 -run '^TestCrowd' ./e2e

# A difference prints its seed, and is kept in e2e/testdata/differential: SEED=N repeats it.
differential: build
	BPFBROKER_DIFFERENTIAL=$(DIFFERENTIAL) BPFBROKER_SEED=$(SEED) go test -v -count 1 -timeout 0 -run '^TestDifferentialGenerated$$' ./e2e

race: deps
	CGO_ENABLED=1 go test -race -p 1 -count 1 $$(go list ./... | grep -v /e2e$$)
	BPFBROKER_RACE=1 go test -count 1 -timeout 1h ./e2e

# Another image than that of linux-image-cloud-amd64, or other tests: hack/kernel.sh.
kernel:
	bash hack/kernel.sh

docs: build
	bin/bpfbroker commands -o markdown >docs/commands.md.new
	mv docs/commands.md.new docs/commands.md
	go run ./hack/confinedoc >docs/confine.md.new
	mv docs/confine.md.new docs/confine.md

govulncheck:
	bash hack/govulncheck.sh $(GOVULNCHECK)

clean:
	rm -rf bin build
