# The commands the README names. Each target that needs the venv makes it first, and renews it when its lock has changed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
READY := $(VENV)/.ready
HOSTS ?= 1
BROKERS ?= 1
LEDGER ?= sqlite
MONITORING ?=
DISTRIBUTION ?= debian12
# All other tests, and the other scenarios, run on debian12.
DISTRIBUTIONS ?= el9-facsimile debian13
# The venv comes first on PATH because Molecule and ansible-lint run whichever Ansible they find there.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONPATH := $(CURDIR)
# pip compiles nothing (below): Python does so with what is imported, once, unless it is told not to.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Show this help
	@echo "RoboShop Dispatch provisioner"; echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16 | sed 's/^/  make /'

$(READY): requirements-dev.txt
	@echo "Making the venv in $(VENV) (again whenever requirements-dev.txt changes)"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; python3 is $$(python3 --version)." >&2; exit 1; }
	@python3 -m venv --clear $(VENV) || { echo "python3 can't make a venv: install its venv package (on Debian: apt-get install python3-venv)." >&2; exit 1; }
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements-dev.txt
	@touch $@

.PHONY: venv
venv: $(READY) ## Make or refresh the venv

# A shop's code goes into the artifact by these words, and the commit of its own code by git's. They are kept in a file, so
# that other words build it anew.
SHOP = $(if $(WITH),--with $(WITH)) $(if $(REQUIREMENTS),--requirements $(REQUIREMENTS))
COMMIT = $(shell git log -1 --format=%H -- dispatch_app 2>/dev/null; git status --porcelain -- dispatch_app 2>/dev/null)

.PHONY: FORCE
dist/shop: FORCE
	@mkdir -p dist
	@echo "$(SHOP) $(COMMIT)" | cmp -s - $@ || echo "$(SHOP) $(COMMIT)" > $@

dist/dispatch.zip: $(READY) dist/shop $(shell find dispatch_app -name '*.py' -o -name '*.txt') $(if $(WITH),$(shell find $(WITH) -type f)) $(REQUIREMENTS)
	python -m dispatch_app.artifact $@ $(SHOP)

.PHONY: artifact
artifact: dist/dispatch.zip ## Build dist/dispatch.zip, which the roles install (WITH=DIR REQUIREMENTS=FILE: with a hook; SIGN=KEY)
	@$(if $(SIGN),ssh-keygen -Y sign -f "$(SIGN)" -n dispatch-artifact < $< > $<.sig.new && mv $<.sig.new $<.sig)

# What each is made of, as CycloneDX; that of the artifact is also in it.
.PHONY: sbom
sbom: dist/dispatch.zip ## Write what the artifact and the controller's venv are made of, dist/*.cdx.json
	python -m tests.publishing sbom dist/controller.cdx.json

.PHONY: audit
audit: $(READY) ## Look for known vulnerabilities in all that the locks pin
	python -m tests.audit

.PHONY: collection
collection: dist/dispatch.zip ## Build the Ansible collection, dist/roboshop-dispatch-VERSION.tar.gz
	python -m tests.publishing collection dist/dispatch.zip

.PHONY: release
release: collection ## Check that tree, version, changelog, artifact and collection agree (TAG=v1.0.0: and the tag)
	python -m tests.publishing check dist/dispatch.zip $(if $(TAG),--tag "$$TAG")

.PHONY: lab
lab: dist/dispatch.zip ## Boot lab hosts on this machine, provision them, send orders, show them dispatched (HOSTS=1, BROKERS=1, LEDGER=sqlite, MONITORING=1, ARTIFACT=…)
	python -m tests.lab up --hosts $(HOSTS) --brokers $(BROKERS) --ledger $(LEDGER) --distribution $(DISTRIBUTION) $(if $(MONITORING),--monitoring) $(if $(ARTIFACT),--artifact "$(ARTIFACT)")

.PHONY: lab-down
lab-down: $(READY) ## Remove the lab: hosts, network, images, keys and secrets
	python -m tests.lab down

# Molecule spends much of its time waiting, so what needs no host runs meanwhile, each with its output in one piece. The
# integration tests run alone, because they break connections under load and wait for what comes of it. Make before 4.0, as
# macOS has it, can't keep outputs apart.
ONE_PIECE := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.PHONY: test
test: dist/dispatch.zip ## Lint, unit tests, Molecule, integration tests
	$(MAKE) --no-print-directory --jobs=2 $(ONE_PIECE) molecule lint unit FIRST=1
	$(MAKE) --no-print-directory integration

.PHONY: lint
lint: $(READY) ## Lint and type-check
	ruff check .
	ruff format --check .
	mypy
	yamllint --strict .
	zizmor --offline --no-progress --quiet --min-severity medium .github
	ansible-lint

.PHONY: unit
unit: dist/dispatch.zip ## Unit tests
	pytest tests/unit -m "not long"

.PHONY: coverage
coverage: dist/dispatch.zip ## Unit tests, and how much of the code they run: build/coverage (fails below the floor)
	pytest tests/unit --cov --cov-report=term --cov-report=xml --cov-report=html

.PHONY: integration
integration: dist/dispatch.zip ## The lab, the playbooks and the consumer against a real RabbitMQ
	pytest tests/integration -m "not long" --durations=10

.PHONY: molecule
molecule: dist/dispatch.zip ## Molecule: provision from nothing, on each of DISTRIBUTIONS that can be had here
	python -m tests.lab matrix $(if $(FIRST),--first) $(DISTRIBUTIONS)

# The parts wait most of their time, and each has labs of its own. The image that all need is made first, so that they don't
# make it twice. Their output is not kept apart, because that would hold it back until a part has ended, and they take long.
.PHONY: test-long
test-long: dist/dispatch.zip ## What takes longer: plays cut short, other scenarios, more seeds for faults and fuzz
	python -m tests.lab image
	$(MAKE) --no-print-directory --jobs=3 long-cluster long-alone long-lab scenarios

# Tests of several brokers or databases; those of other labs; and those that share the lab of `make integration`.
CLUSTERS := $(patsubst %,tests/integration/test_%.py,cluster shared_ledger shop_under_faults)
ALONE := tests/integration/doctor $(patsubst %,tests/integration/test_%.py,broker drill fleet monitoring parity)

.PHONY: long-cluster long-alone long-lab
long-cluster: dist/dispatch.zip
	pytest $(CLUSTERS) -m long --durations=10

long-alone: dist/dispatch.zip
	pytest $(ALONE) -m long --durations=10

long-lab: dist/dispatch.zip
	DISPATCH_TEST_ROUNDS=2 pytest tests $(addprefix --ignore=,$(CLUSTERS) $(ALONE)) -m long --durations=10

.PHONY: scenarios
scenarios: molecule
	for name in release repoint reboot secrets tls go; do molecule test --scenario-name $$name; done

.PHONY: dashboard
dashboard: $(READY) ## Write Grafana's dashboard out of templates/monitoring/dashboard.yml
	python templates/monitoring/dashboard.py

.PHONY: bench-consumer
bench-consumer: $(READY) ## Dispatch beside consumers in Go, pika and aio-pika (BENCH="--rate 5000 --consumers dispatch")
	python -m tests.benchmarks $(BENCH)

.PHONY: bench-provision
bench-provision: dist/dispatch.zip ## Four ways to provision Dispatch on 1, 4 and 12 hosts (BENCH="--hosts 4 --repeats 1")
	python -m tests.benchmarks.provision $(BENCH)

.PHONY: bench-report
bench-report: $(READY) ## The latest results of both, beside the ones before
	python -m tests.benchmarks.results

# Hosts get exactly one wheel of each package, the one that fits every host. pip-compile would list the hashes of all files
# of a version, so those pins are kept by hand. After `make lock`, copy the versions in requirements-dev.txt to
# dispatch_app/requirements.txt and tracing.txt (a unit test compares them), put a newer pip into installer.txt beside them
# if there is one, and for each take the hash that this prints:
#   pip download --no-deps --only-binary :all: --dest build NAME==VERSION && pip hash build/*.whl
.PHONY: lock
lock: ## Renew requirements.txt, requirements-dev.txt and requirements-lock.txt
	python3 -m venv --clear build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-lock.txt
	build/lock/bin/pip-compile $(LOCK) --output-file requirements.txt pyproject.toml
	build/lock/bin/pip-compile $(LOCK) --extra app --extra lab --extra test --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml
	echo pip-tools | build/lock/bin/pip-compile $(LOCK) --output-file requirements-lock.txt -

LOCK := --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: clean
clean: ## Remove the venv and what was built
	rm -rf $(VENV) dist build
