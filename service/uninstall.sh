#!/bin/sh
# Removes what make install put there: make uninstall. The configuration and the state stay, unless PURGE=1.
set -eu

DESTDIR=${DESTDIR:-}
PREFIX=/usr/local

say() { printf 'uninstall: %s\n' "$*" >&2; }

if [ "$(id -u)" -ne 0 ]; then
	say "the files are root's: start again with sudo (sudo make uninstall)."
	exit 1
fi
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
	systemctl disable --quiet --now ctweb || say "there was no service to stop"
fi
# The service leaves its programs attached when it stops.
if [ -z "$DESTDIR" ] && [ -x "$PREFIX/bin/ctweb" ]; then
	"$PREFIX/bin/ctweb" detach || say "what the service left on the interfaces is still there: see above"
fi
rm -rf "$DESTDIR$PREFIX/lib/ctweb"
rm -f "$DESTDIR$PREFIX/bin/ctweb" \
	"$DESTDIR$PREFIX/lib/systemd/system/ctweb.service" \
	"$DESTDIR$PREFIX/share/man/man1/ctweb.1" "$DESTDIR$PREFIX"/share/man/man1/ctweb-*.1 \
	"$DESTDIR$PREFIX/share/bash-completion/completions/ctweb" \
	"$DESTDIR$PREFIX/share/zsh/site-functions/_ctweb" \
	"$DESTDIR$PREFIX/share/fish/vendor_completions.d/ctweb.fish"
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
rm -rf "$DESTDIR/var/cache/ctweb"
if [ "${PURGE:-}" = 1 ]; then
	rm -rf "$DESTDIR/etc/ctweb" "$DESTDIR/var/lib/ctweb"
	[ -n "$DESTDIR" ] || rm -rf /run/ctweb
else
	say "the configuration in $DESTDIR/etc/ctweb and the state in $DESTDIR/var/lib/ctweb stay; PURGE=1 removes them too"
fi
