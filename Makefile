# make help

.PHONY: help setup check format test test-all demo bench clean
.DEFAULT_GOAL := help

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:  ## make .venv with the pinned versions (nothing to do a second time)
	@scripts/setup

check: setup  ## format, lint, types
	@scripts/check

format: setup  ## let ruff format and repair
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

test: setup  ## checks and all tests but the slow ones
	@scripts/check
	@scripts/test

test-all: setup  ## checks and every test that needs no GPU
	@scripts/check
	@scripts/test --all

demo: setup  ## real data through every stage, to recommendations over HTTP; SHOP=1: a shop's
	@scripts/demo $(if $(SHOP),examples/shop.toml)

bench: setup  ## every benchmark, one after the other, with its time; docs/benchmarks.md says how long
	@failed=0; for file in $$(grep -l __main__ benchmarks/*.py); do \
		echo "== $$file"; start=$$(date +%s); .venv/bin/python "$$file" || failed=1; \
		echo "== $$file: $$(($$(date +%s) - start)) s"; \
	done; exit $$failed

clean:  ## remove what runs leave behind; .venv stays
	rm -rf artifacts build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +
