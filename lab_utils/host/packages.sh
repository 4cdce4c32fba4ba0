#!/bin/sh
# Installs what a host needs and lacks. Says first what and why; uses sudo only for that. On systems other than
# Debian and Ubuntu it names the packages and lets the user install them.
#
#   packages.sh          everything for `lab up` (the embedded provider) and the tests
#   packages.sh python   only what a virtual environment needs
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}

missing=""
want() { # want PACKAGE
    case " $missing " in *" $1 "*) ;; *) missing="$missing $1" ;; esac
}
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || want "$2"
}
need_file() { # need_file PATH PACKAGE
    [ -e "$1" ] || want "$2"
}

new_python() { # or there is none yet
    command -v "$python" >/dev/null 2>&1 || return 0
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && return 0
    found="$(command -v "$python") is $("$python" --version 2>&1)"
    echo "lab: $found, and 3.11 or newer is needed: install one and name it, for example: make lab PYTHON=python3.11" >&2
    exit 2
}

made() { # are runc and the images in the cache, in whatever way they came there? (lab_utils/paths.py says where it is)
    programs=${LAB_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/kubernetes-inside-out}/programs
    root=${LAB_CACHE:+$LAB_CACHE/root}
    ls "$programs"/runc/*.json "${root:-/var/cache/kubernetes-inside-out}"/imagestore/*.json >/dev/null 2>&1
}

silent() { # silent ADDRESS…: is there one among these servers that does not answer, nor a mirror in its place?
    [ -n "${PYTHON:-}" ] || [ ! -x "$here/.venv/bin/python" ] || python=$here/.venv/bin/python
    ask='import sys; from lab_utils.artifacts.download import reachable; print("silent" if {*sys.argv[1:]} - reachable(sys.argv[1:]) else "")'
    [ "$(cd "$here" && "$python" -c "$ask" "$@")" = silent ]
}

if [ "${1:-}" = python ]; then
    new_python
    case "${python##*/}" in python3.*) package=${python##*/}-venv ;; *) package=python3-venv ;; esac
    "$python" -c 'import venv, ensurepip' 2>/dev/null || want "$package"
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
    need_file "${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}" debian-archive-keyring
    need ssh openssh-client
    need bwrap bubblewrap
    need tcpdump tcpdump
    # Three things are C or lean on it: runc, and what is in the images of pause and flannel. Where they can be downloaded, or are here
    # already, nothing compiles them. The rest is Go, for which pip fetches what compiles it.
    if ! made && silent https://github.com/ https://registry.k8s.io/ https://ghcr.io/; then
        need gcc gcc
        need pkg-config pkg-config
        need_file /usr/include/stdio.h libc6-dev
        need_file /usr/include/seccomp.h libseccomp-dev
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
[ "${1:-}" != python ] || new_python
