# make install | demo | demo-train | test | test-all | test-gpu | faults | lint | bench | kafka. The first four work as the first command in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
JARS := .kafka/libs/.collected

.PHONY: install demo demo-train test test-all test-gpu faults lint bench kafka clean

install: $(INSTALLED)

# Made anew when a dependency changes. The stamp is last, so an installation that was cut off is begun again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "nlp-worker needs Python 3.11 or newer: set PYTHON=")'
	@echo "installing into .venv: about 5.5 GB, most of it torch, which takes some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[inference,tracing,train,dev]'
	touch $@

# MODELS=hub answers with a checkpoint from the hub instead of the miniature one that the demo trains. TASK=fill-mask, say,
# asks toy requests of that task, and TASK=all those of every task, of miniatures that are trained in a minute.
demo: install
	$(BIN)/nlp-worker demo --models $(or $(MODELS),miniature) $(if $(TASK),--task $(TASK))

# A worker answers, a better checkpoint is trained from labels and evaluated, and rolled over to: two minutes of two cores.
demo-train: install
	$(BIN)/nlp-worker demo --train

# lint first; then, in two processes, what takes eleven minutes of two cores: on a real Apache Kafka too where Java and Maven
# are (REQUIRE_KAFKA=1: or else fail), of each architecture the first family of every test, and no long matrix of faults.
# worksteal: tests of a file stay together, as they share checkpoints and brokers, until one process has nothing left.
test: lint
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow and not faults"

# The long matrix of faults, half an hour, on a real Apache Kafka: it writes the tables of docs/guarantees.md.
faults: install
	REQUIRE_KAFKA=1 $(BIN)/pytest tests/faults -n 2 --dist worksteal --write-faults

# All tests of the tasks, and those of the device itself, on a CUDA device. What packs on a CPU in float32 is padded on
# a GPU: tests/gpu has what packs there.
test-gpu: install
	TEST_DEVICE=cuda $(BIN)/pytest -n 4 --dist worksteal -m "not slow" tests/gpu tests/tasks tests/contract/test_tasks.py --ignore tests/tasks/test_packing.py

# Every test; in one process, as it also writes what it measured to the tables of docs/.
test-all: lint
	$(BIN)/pytest --write-docs

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -n 2 schemas worker tests benchmarks scripts examples
	$(BIN)/lint-imports --no-cache

# Run it alone: an hour or more of two cores. Tables; and figures and plots, which go to benchmarks/results/. `make bench-loop`
# runs one of them; beside these there are bench-delivery (what exactly once costs) and bench-gpu (all that a GPU changes).
bench: $(addprefix bench-,padding stages loop throughput latency planner tasks generation scaling backlog training)

bench-%: install
	$(BIN)/python -m benchmarks.$*

# The jars of Apache Kafka, as tests/kafka/pom.xml names them.
kafka: $(JARS)

$(JARS): tests/kafka/pom.xml
	mvn -q -B -f tests/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.kafka/libs
	touch $@

clean:
	rm -rf .venv .kafka .demo build dist *.egg-info
