#!/bin/sh
# Installs ctweb as a service: make install. As root; with DESTDIR=DIR everything goes below DIR, and nothing is started.
# A copy of its own, root's, for the distribution's Python: what happens to the clone does not concern it.
set -eu
cd "$(dirname "$0")/.."
umask 022

DESTDIR=${DESTDIR:-}
PREFIX=/usr/local
LIB=$PREFIX/lib/ctweb
PYTHON=.venv/bin/python3

say() { printf 'install: %s\n' "$*" >&2; }
die() {
	say "$@"
	exit 1
}

[ "$(id -u)" -eq 0 ] || die "the files are to be root's: start again with sudo (sudo make install)."
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT

# -- The program. pip builds it from a copy, for it leaves files where it builds.
mkdir "$source/ctweb"
cp -R ctweb pyproject.toml README.md LICENSE ebpf static "$source/ctweb"
packages=$source/packages
"$PYTHON" -m pip install --quiet --disable-pip-version-check --no-input --root-user-action=ignore \
	--target "$packages" "$source/ctweb" >&2 ||
	die "pip could not install the Python packages; its own message is above. Is PyPI reachable from here (https_proxy, PIP_INDEX_URL)?"
cp -R ebpf static "$packages"
rm -rf "${packages:?}/bin"
chown -R 0:0 "$packages"
mkdir -p "$DESTDIR$PREFIX/lib" "$DESTDIR$PREFIX/bin"
rm -rf "$DESTDIR$LIB"
mv "$packages" "$DESTDIR$LIB"
chmod 755 "$DESTDIR$LIB"

version=$("$PYTHON" -c 'import sys; print("%d, %d" % sys.version_info[:2])')
cat >"$source/ctweb.py" <<END
#!/usr/bin/python3 -I
"""ctweb, as make install put it there."""
import sys

if sys.version_info[:2] != ($version):
    sys.exit("ctweb: this machine's Python has another version since ctweb was installed: run make install again")
sys.path.insert(0, "$LIB")
from ctweb.cli import main

main(prog_name="ctweb")
END
install -m 755 "$source/ctweb.py" "$DESTDIR$PREFIX/bin/ctweb"

# -- Manual pages and completion, by the libraries, from the commands themselves.
mkdir -p "$DESTDIR$PREFIX/share/man/man1" "$source/man"
"$PYTHON" - "$source/man" <<'END'
import sys
from importlib.metadata import version

from click_man.core import write_man_pages

from ctweb.cli import main

write_man_pages("ctweb", main, version=version("ctweb"), target_dir=sys.argv[1])
END
install -m 644 "$source"/man/*.1 "$DESTDIR$PREFIX/share/man/man1"
completion() { # $1: shell, $2: where it looks
	_CTWEB_COMPLETE=$1_source "$PYTHON" -c 'from ctweb.cli import main; main(prog_name="ctweb")' >"$source/completion"
	install -D -m 644 "$source/completion" "$DESTDIR$PREFIX/share/$2"
}
completion bash bash-completion/completions/ctweb
completion zsh zsh/site-functions/_ctweb
completion fish fish/vendor_completions.d/ctweb.fish

# -- The service, its configuration (an existing one stays as it is) and its state.
install -D -m 644 service/ctweb.service "$DESTDIR$PREFIX/lib/systemd/system/ctweb.service"
# Root writes the configuration; the program, which reads it again as the user ctweb, may not.
install -d -m 750 -g ctweb "$DESTDIR/etc/ctweb"
if [ ! -e "$DESTDIR/etc/ctweb/ctweb.toml" ]; then
	"$PYTHON" -m ctweb.commented_config >"$source/ctweb.toml"
	install -m 640 -g ctweb "$source/ctweb.toml" "$DESTDIR/etc/ctweb/ctweb.toml"
elif [ "$(stat -c %G "$DESTDIR/etc/ctweb/ctweb.toml")" = root ]; then
	chgrp ctweb "$DESTDIR/etc/ctweb/ctweb.toml" # an earlier version put it there
fi
install -d -m 700 -o ctweb -g ctweb "$DESTDIR/var/lib/ctweb"

if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	say "installed; start it now and at every boot with: systemctl enable --now ctweb"
else
	say "installed${DESTDIR:+ below $DESTDIR}"
fi
