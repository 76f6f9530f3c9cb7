# As root. ARGS reaches the program: make run ARGS="--listen 127.0.0.1:8000", make test ARGS="-k tcp", make bench ARGS=--quick
.PHONY: run setup install uninstall test fuzz soak bench screenshots

run:
	@./setup.sh run
	@exec .venv/bin/ctweb run $(ARGS)

setup:
	@./setup.sh setup

# A copy of its own below /usr/local, and a systemd unit; DESTDIR=DIR puts all of it below DIR. The state stays at
# uninstall, unless PURGE=1.
install:
	@./setup.sh install
	@DESTDIR="$(DESTDIR)" ./service/install.sh

uninstall:
	@DESTDIR="$(DESTDIR)" PURGE="$(PURGE)" ./service/uninstall.sh

# All three run, whatever the one before said; pytest's summary comes last.
test:
	@./setup.sh test
	@failed=; \
	.venv/bin/ruff check . || failed=1; \
	.venv/bin/mypy --strict || failed=1; \
	.venv/bin/pytest -n 5 $(ARGS) || failed=1; \
	test -z "$$failed"

# 20 million frames through the programs beside the reference model; ARGS="--packets N" of each of the ten shapes.
fuzz:
	@./setup.sh test
	@PYTHONPATH=tests .venv/bin/python -m reliability.fuzz $(ARGS)

# Mixed traffic and clients that come and go, for an hour; ARGS="--minutes N".
soak:
	@./setup.sh test
	@PYTHONPATH=tests .venv/bin/python -m reliability.soak $(ARGS)

bench:
	@./setup.sh test
	@.venv/bin/python -m bench $(ARGS)

# The pictures in docs/, taken of the page on real traffic in network namespaces.
screenshots:
	@./setup.sh test
	@PYTHONPATH=tests .venv/bin/python -m browser.screenshots
