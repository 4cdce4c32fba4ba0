#!/bin/sh
# Installs what a host needs and lacks. Says first what and why; uses sudo only for that. On systems other than
# Debian and Ubuntu it names the packages and lets the user install them.
#
#   packages.sh          everything for `lab up` (the embedded provider) and the tests
#   packages.sh python   only what a virtual environment needs
set -eu

missing=""
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || case " $missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac
}

if [ "${1:-}" = python ]; then
    "${PYTHON:-python3}" -c 'import venv, ensurepip' 2>/dev/null || missing=" python3-venv"
    why="a virtual environment for Python"
elif [ "$(uname -s)" != Linux ]; then
    exit 0 # no embedded provider here: `lab doctor` says what can run instead
else
    need ip iproute2
    need nft nftables
    need iptables iptables
    need ipset ipset
    need unshare util-linux
    need mmdebstrap mmdebstrap
    need ssh openssh-client
    need bwrap bubblewrap
    need tcpdump tcpdump
    # Where releases can be downloaded nothing is built, and these are not needed.
    if ! "${RELEASES_REACHED:-false}" && ! curl -sfI --max-time 5 https://dl.k8s.io/ >/dev/null 2>&1; then
        need gcc gcc
        need make make
        need go golang
        [ -e /usr/include/seccomp.h ] || missing="$missing libseccomp-dev"
        command -v pkg-config >/dev/null 2>&1 || missing="$missing pkg-config"
    fi
    why="nodes as Linux namespaces (iproute2, nftables), their Debian root (mmdebstrap), grading in a sandbox (bubblewrap)"
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "lab: these are missing on this machine (named as Debian names them):$missing" >&2
    echo "lab: install them with your package manager, for example: sudo dnf install$missing" >&2
    exit 2
fi
echo "lab: installing$missing: $why"
sudo=""
[ "$(id -u)" = 0 ] || { sudo=sudo; echo "lab: sudo is used for apt-get only"; }
# A list that was never fetched knows no package; one that is days old may name files that are gone.
$sudo apt-get update -q >/dev/null || true
# shellcheck disable=SC2086 # several words are meant
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends $missing >/dev/null || {
    echo "lab: apt-get could not install$missing; try it by hand to see why" >&2
    exit 2
}
