# make run    sets up all that is needed, and starts NB, SB and ovn-northd in the foreground
# make test   sets up all that the tests need, and runs every check and test
# make compiled  the core as machine code, in build/compiled: needs a C compiler and a minute, and is twice
#                as fast; it is used from then on for as long as the source stays what it was
# make bench  the same load on ours and on Debian's C server, as a table of ratios
# make bench-cluster  clusters of ours and C's: how fast, and how long nothing is written when one is killed
# make bench-api  what a node of the control platform bears on one core, with 100,000 ports loaded
# make bench-plots  how cost grows with clients and rows, as pictures in docs/img: takes ten minutes
# make client  a Python client of the API in build/client, made of the description that the node at CLIENT_URL
#             (make run's) gives of itself
# make properties  every property that make test tries, with EXAMPLES=20 times as many examples, others each
#             time, for whoever changes the core: takes half an hour
# make soak   clients of every kind on a server that is killed again and again, for ten minutes; SOAK_ARGS
#             has a seed, or endpoints of other servers: see tests/soak/__main__.py
# make chaos  servers over etcd and PostgreSQL to which everything happens, for ten minutes, and a judge of
#             what their clients saw; CHAOS_ARGS has a seed: see tests/chaos/__main__.py
# make interop  the interop tests and conformance cases that make test runs on one server, on three over
#             etcd and three over PostgreSQL; takes about as long again as make test
# make lock   resolves the dependencies again, and pins them by hash
# make clean  removes what the others made (never the data in ./var)

PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) python3.11)
EXAMPLES ?= 20
SOAK_ARGS ?=
CHAOS_ARGS ?=
TEST_PROCESSES ?= 4
BENCH_ARGS ?=
UP_ARGS ?=
CLIENT_URL ?= http://127.0.0.1:8080
CLIENT_DIR ?= build/client

# Where Debian keeps servers, which is not on every user's PATH.
export PATH := $(PATH):/usr/sbin:/sbin

BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
TESTED_WITH = venv openssl ovsdb-server ovs-vsctl ovs-vswitchd vtep-ctl ovn-nbctl ovn-northd \
    ovn-controller ovn-ic ovn-controller-vtep etcd etcdctl postgres redis-server haproxy nginx \
    promtool docker-compose kubectl ip nft strace gcc
LOCK = CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
    --no-emit-options --build-deps-for=editable pyproject.toml

# The hot path, which mypyc can compile as it stands; src/ovncp/__init__.py finds the copy.
HOT = ovncp/ovsdb/*.py ovncp/wire/json_stream.py ovncp/wire/json_strict.py ovncp/wire/jsonrpc.py ovncp/follow/following.py \
    ovncp/server/runner.py ovncp/server/server_runner.py ovncp/server/clustered.py ovncp/server/relay.py \
    ovncp/server/methods.py ovncp/server/session.py ovncp/server/monitor_methods.py ovncp/server/output.py \
    ovncp/server/worker_relay.py ovncp/server/clock.py ovncp/server/uuids.py ovncp/server/perf_counter.py
# What is tested on the source too, which is what tests HOT; everything is tested compiled.
TESTED_AS_SOURCE = tests/conformance tests/model $(patsubst %,tests/unit/test_%.py, \
    clock compiled database history json_stream jsonrpc perf_counter replica)

.PHONY: run test lint lint-and-source compiled bench bench-cluster bench-api bench-plots client properties soak chaos interop lock clean programs

run: .venv/run.stamp
	@PYTHON=$(PYTHON) .ci/packages --try ovn-nbctl ovn-northd
	@PYTHON=$(PYTHON) .ci/packages gcc python3-dev && $(MAKE) --no-print-directory compiled \
	    || echo "Not compiled: ovncp runs at about half the speed."
	@exec $(BIN)/ovncp up $(UP_ARGS)

test: programs .venv/dev.stamp
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint-and-source compiled
	$(BIN)/python -m pytest -n $(TEST_PROCESSES)

# The compiler takes minutes, of one processor.
lint-and-source: lint
	OVNCP_SOURCE=1 CONFORMANCE_KINDS=c,ovncp $(BIN)/python -m pytest -n 2 $(TESTED_AS_SOURCE)

lint: programs .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

compiled: build/compiled/stamp ;@:

build/compiled/stamp: .venv/compiler.stamp $(shell find src -name '*.py')
	@PYTHON=$(PYTHON) .ci/packages gcc python3-dev
	@echo "Compiling the core, once for this source; it takes about a minute."
	@rm -rf build/compiling && mkdir -p build/compiling && touch build/begun
	@cp -R src/ovncp build/compiling/
	@cd build/compiling && PATH=$(CURDIR)/$(BIN):$$PATH mypyc --strict $(HOT) >../mypyc.log 2>&1 \
	    || { cat ../mypyc.log; exit 1; }
	@rm -rf build/compiling/build build/compiling/.mypy_cache build/compiled
	@mv build/compiling build/compiled && touch -r build/begun $@

bench: programs .venv/dev.stamp compiled
	PYTHONPATH=tests $(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-cluster: programs .venv/dev.stamp compiled
	PYTHONPATH=tests $(BIN)/python -m tests.bench.cluster $(BENCH_ARGS)

bench-api: programs .venv/dev.stamp compiled
	PYTHONPATH=tests $(BIN)/python -m tests.bench.api $(BENCH_ARGS)

bench-plots: programs .venv/dev.stamp compiled
	PYTHONPATH=tests $(BIN)/python -m tests.bench.plots $(BENCH_ARGS)

client: .venv/client.stamp
	$(BIN)/openapi-python-client generate --url $(CLIENT_URL)/openapi.json --config .ci/client.yaml \
	    --meta setup --output-path $(CLIENT_DIR) --overwrite --fail-on-warning

properties: programs .venv/dev.stamp compiled
	EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -n $(TEST_PROCESSES) --timeout=1800 -m hypothesis

soak: programs .venv/dev.stamp
	PYTHONPATH=tests $(BIN)/python -m soak $(SOAK_ARGS)

chaos: programs .venv/dev.stamp compiled
	PYTHONPATH=tests $(BIN)/python -m chaos $(CHAOS_ARGS)

interop: programs .venv/dev.stamp compiled
	INTEROP_KIND=etcd $(BIN)/python -m pytest -n $(TEST_PROCESSES) tests/interop
	INTEROP_KIND=postgresql $(BIN)/python -m pytest -n $(TEST_PROCESSES) tests/interop
	CONFORMANCE_KINDS="ovncp,etcd ovncp,postgresql" $(BIN)/python -m pytest tests/conformance/test_cases.py

lock: .venv/dev.stamp
	$(LOCK) --extra=platform --output-file=requirements.lock
	$(LOCK) --extra=platform --extra=compiler --constraint=requirements.lock --output-file=requirements-compiler.lock
	$(LOCK) --all-extras --constraint=requirements-compiler.lock --output-file=requirements-dev.lock
	$(LOCK) --extra=platform --extra=client --constraint=requirements-dev.lock --output-file=requirements-client.lock

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -prune -exec rm -rf {} +

programs:
	@PYTHON=$(PYTHON) .ci/packages $(TESTED_WITH)

.venv/pyvenv.cfg:
	@PYTHON=$(PYTHON) .ci/packages venv
	$(PYTHON) -m venv .venv

# The build tools come from the lock file too, so that nothing is fetched that it does not name.
.venv/run.stamp: requirements.lock pyproject.toml | .venv/pyvenv.cfg
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/compiler.stamp: requirements-compiler.lock .venv/run.stamp
	$(PIP) install --require-hashes -r requirements-compiler.lock
	@touch $@

.venv/client.stamp: requirements-client.lock .venv/run.stamp
	$(PIP) install --require-hashes -r requirements-client.lock
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/run.stamp
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@
