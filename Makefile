# As root. ARGS reaches the program: make run ARGS="--listen 127.0.0.1:8000", make test ARGS="-k tcp", make bench ARGS=--quick
.PHONY: run setup test bench screenshots

run:
	@./setup.sh run
	@exec .venv/bin/ctweb run $(ARGS)

setup:
	@./setup.sh setup

# All three run, whatever the one before said; pytest's summary comes last.
test:
	@./setup.sh test
	@failed=; \
	.venv/bin/ruff check . || failed=1; \
	.venv/bin/mypy --strict || failed=1; \
	.venv/bin/pytest $(ARGS) || failed=1; \
	test -z "$$failed"

bench:
	@./setup.sh test
	@.venv/bin/python -m bench $(ARGS)

# The pictures in docs/, taken of the page on real traffic in network namespaces.
screenshots:
	@./setup.sh test
	@PYTHONPATH=tests .venv/bin/python -m browser.screenshots
