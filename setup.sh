#!/bin/sh
# Installs what ctweb needs on Debian or Ubuntu, and makes its user; quick and silent when nothing is missing.
#   ./setup.sh setup   to run ctweb
#   ./setup.sh run     the same, but ask for root and a kernel that is new enough first
#   ./setup.sh install the same as setup, and what make install makes the manual pages with
#   ./setup.sh test    to run the tests and benchmarks too
# Needs no particular tool but a shell: the rest it installs. It always uses the distribution's own Python,
# since BCC is a module of that one: a `python3` that comes first on PATH may be another.
set -eu
cd "$(dirname "$0")"
unset PYTHONHOME PYTHONPATH

PYTHON=/usr/bin/python3
MIN_KERNEL=5.15 # the same as in ctweb/doctor/machine.py

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
	say "$@"
	exit 1
}

kernel_is_new_enough() {
	release=$(uname -r)
	major=${release%%.*}
	minor=${release#*.}
	minor=${minor%%[!0-9]*}
	[ "$major" -gt "${MIN_KERNEL%.*}" ] || { [ "$major" -eq "${MIN_KERNEL%.*}" ] && [ "$minor" -ge "${MIN_KERNEL#*.}" ]; }
}

# -- What the distribution provides: a package is missing when what it is wanted for does not work.
python_can() { "$PYTHON" -c "$1" 2>/dev/null; }
has_file() { for file; do [ -e "$file" ] && return; done; return 1; }
has_command() { command -v "$1" >/dev/null 2>&1; }

# Ubuntu's Chromium is a snap, which sees too little of the machine to be driven by tests.
chromium_is_a_snap() { grep -qx 'ID=ubuntu' /etc/os-release; }

missing_packages() {
	python_can 'from bcc import BPF' || echo python3-bpfcc
	python_can 'import ensurepip' || echo python3-venv
	has_file /usr/include/linux/bpf.h || echo linux-libc-dev
	has_file /etc/ssl/certs/ca-certificates.crt || echo ca-certificates
	[ "$1" = test ] || return 0
	if chromium_is_a_snap; then # what the one from npm needs
		has_file /usr/lib/*/libnss3.so || echo libnss3
		has_file /usr/share/fonts/truetype/dejavu || echo fonts-dejavu-core
	else
		has_command chromium || echo chromium
	fi
	while read -r command package; do
		has_command "$command" || echo "$package"
	done <<-END
		conntrack conntrack
		curl curl
		ethtool ethtool
		ip iproute2
		iperf3 iperf3
		iptables-legacy iptables
		man man-db
		nc netcat-openbsd
		nft nftables
		npm npm
		ping iputils-ping
		setpriv util-linux
		shellcheck shellcheck
		systemd-analyze systemd
		sysctl procps
		tcpdump tcpdump
	END
}

install_packages() {
	missing=$(missing_packages "$1" | sort -u | tr '\n' ' ')
	[ -n "$missing" ] || return 0
	has_command apt-get || die "missing: $missing- and this machine has no apt-get to install them." \
		"On another distribution install what corresponds (BCC for $PYTHON, its venv module, the kernel's UAPI headers) and start again."
	[ "$(id -u)" -eq 0 ] || die "missing: $missing- installing packages needs root: start again with sudo."
	say "installing $missing"
	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
	apt-get -qq -o DPkg::Lock::Timeout=300 update || say "apt-get update failed; trying with the lists there are"
	# shellcheck disable=SC2086 # one word a package
	apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
		-o Dpkg::Options::=--force-confold install $missing >&2 </dev/null ||
		die "apt-get could not install $missing- its own message is above. Is the network up, and are Debian's or Ubuntu's repositories configured?"
	missing=$(missing_packages "$1" | tr '\n' ' ')
	[ -z "$missing" ] || die "still missing after installing them: $missing- is something else in the way, for example a $PYTHON that is not the distribution's?"
}

# -- The user that ctweb becomes once its programs are attached.
make_user() {
	if getent passwd ctweb >/dev/null || [ "$(id -u)" -ne 0 ]; then
		return
	fi
	say "making the system user ctweb"
	{
		getent group ctweb || groupadd --system ctweb
		useradd --system --gid ctweb --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ctweb
	} >&2 || getent passwd ctweb >&2 || # another one that ran at the same time did
		say "could not make the system user ctweb; the reason is above. Without it ctweb stays root."
}

# -- What PyPI provides, in a venv that sees the distribution's modules.
venv_is_usable() {
	grep -qx 'home = /usr/bin' .venv/pyvenv.cfg 2>/dev/null &&
		grep -qx 'include-system-site-packages = true' .venv/pyvenv.cfg &&
		grep -qF "$PWD/.venv" .venv/bin/activate &&
		[ "$(.venv/bin/python3 -V 2>/dev/null)" = "$($PYTHON -V)" ]
}

# $1: name of the stamp, $2: what pip installs. The stamp holds the hash of what it was installed by.
install_python_packages() {
	wanted=$(cat pyproject.toml setup.sh | sha256sum)
	[ "$(cat ".venv/$1.stamp" 2>/dev/null)" != "$wanted" ] || return 0
	say "installing Python packages into .venv"
	.venv/bin/python3 -m pip install --quiet --disable-pip-version-check --no-input --editable "$2" >&2 ||
		die "pip could not install the Python packages; its own message is above. Is PyPI reachable from here (https_proxy, PIP_INDEX_URL)?"
	echo "$wanted" >".venv/$1.stamp"
}

# promtool alone: the package it comes in would start a Prometheus on this machine. $1: where it goes.
install_promtool() {
	[ ! -x "$1" ] || return 0
	say "taking promtool out of Debian's package prometheus"
	unpacked=$(mktemp -d)
	(cd "$unpacked" && apt-get -qq -o APT::Sandbox::User=root download prometheus && dpkg-deb --extract prometheus_*.deb . &&
		install -m 755 usr/bin/promtool promtool) >&2 ||
		die "could not get promtool; apt-get's own message is above. Is the network up, and are Debian's or Ubuntu's repositories configured?"
	mv "$unpacked/promtool" "$1"
	rm -rf "$unpacked"
}

# -- What npm provides: tools that check the page. The page itself needs none of them.
# $1: where the tests find a browser: the distribution's, or npm's in this version.
CHROMIUM=153.0.0
CHROMIUM_SHA256=20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0
install_chromium() {
	if ! chromium_is_a_snap; then
		ln -sf "$(command -v chromium)" "$1"
		return
	fi
	! "$1" --version 2>/dev/null | grep -qF " ${CHROMIUM%%.*}." || return 0
	[ "$(uname -m)" = x86_64 ] || die "there is no Chromium for the tests on $(uname -m): Ubuntu's is a snap, and npm has one for x86_64."
	say "installing Chromium from npm"
	unpacked=$(mktemp -d)
	(cd "$unpacked" && npm pack --silent "@sparticuz/chromium@$CHROMIUM" && echo "$CHROMIUM_SHA256 sparticuz-chromium-$CHROMIUM.tgz" | sha256sum --check --quiet &&
		tar -xzf "sparticuz-chromium-$CHROMIUM.tgz" && node -e 'const {createReadStream: from, createWriteStream: to} = require("fs");
			from("package/bin/chromium.br").pipe(require("zlib").createBrotliDecompress()).pipe(to("chromium", {mode: 0o755}))') >&2 ||
		die "could not get Chromium from npm; its own message is above. Is the npm registry reachable from here?"
	mv "$unpacked/chromium" "$1"
	rm -rf "$unpacked"
}

install_node_packages() {
	wanted=$(sha256sum <tests/browser/package-lock.json)
	[ "$(cat tests/browser/node_modules/.stamp 2>/dev/null)" != "$wanted" ] || return 0
	say "installing npm packages into tests/browser/node_modules"
	npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund --loglevel=error >&2 ||
		die "npm could not install the packages; its own message is above. Is the npm registry reachable from here?"
	echo "$wanted" >tests/browser/node_modules/.stamp
}

mode=${1:-setup}
case $mode in
setup | run | install | test) ;;
*) die "unknown argument $mode: give setup, run, install or test" ;;
esac

[ "$(uname -s)" = Linux ] || die "ctweb runs on Linux only: this is $(uname -s)."
if [ "$mode" = run ]; then
	[ "$(id -u)" -eq 0 ] || die "ctweb loads BPF programs, which needs root: start again with sudo (sudo make run)."
	kernel_is_new_enough ||
		die "this kernel is $(uname -r), and ctweb needs $MIN_KERNEL or newer: upgrade it, for example to Debian 12's or Ubuntu 24.04's."
fi

install_packages "$mode"
make_user
if ! venv_is_usable; then
	[ ! -e .venv ] || say "making .venv anew: it was made from another Python or for another directory"
	rm -rf .venv
	"$PYTHON" -m venv --system-site-packages .venv || die "$PYTHON could not make the venv .venv; its own message is above."
fi
if [ "$mode" = test ]; then
	install_python_packages test '.[test]'
	install_promtool "$PWD/.venv/bin/promtool"
	install_node_packages
	install_chromium "$PWD/.venv/bin/chromium"
elif [ "$mode" = install ]; then
	install_python_packages install '.[install]'
else
	install_python_packages run .
fi
