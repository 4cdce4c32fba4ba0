#!/bin/sh
# Installs what a host needs and lacks. Says first what and why; uses sudo only for that. On systems other than
# Debian and Ubuntu it names the packages, as packages.txt has them, and lets the user install them.
#
#   packages.sh          everything for `lab up` (the embedded provider) and the tests
#   packages.sh python   only what a virtual environment needs
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}

manager_of() { # manager_of WORD…: the package manager of the first system among these that is known
    for word in "$@"; do
        case "$word" in
        debian | ubuntu) echo apt-get ;;
        fedora | rhel | centos) echo dnf ;;
        arch) echo pacman ;;
        suse | opensuse | sles) echo zypper ;;
        *) continue ;;
        esac
        return 0
    done
    for word in apt-get dnf pacman zypper; do
        if command -v "$word" >/dev/null 2>&1; then echo "$word" && return 0; fi
    done
}
# What the system calls itself comes first: Fedora's mmdebstrap brings an apt-get along. (os-release is made to be sourced.)
# shellcheck disable=SC1090,SC2046 # the file of this machine; several words are meant
manager=$(manager_of $(. "${OS_RELEASE:-/etc/os-release}" 2>/dev/null && echo "${ID:-} ${ID_LIKE:-}"))

missing="" # packages
unknown="" # what there is no package of here, in Debian's name for it
add() { # add PACKAGE
    case " $missing " in *" $1 "*) ;; *) missing="$missing $1" ;; esac
}
want() { # want WHAT, as packages.txt calls it
    while read -r what apt dnf pacman zypper; do
        [ "$what" = "$1" ] || continue
        case "$manager" in dnf) package=$dnf ;; pacman) package=$pacman ;; zypper) package=$zypper ;; *) package=$apt ;; esac
        if [ "$package" = - ]; then unknown="$unknown $apt"; else add "$package"; fi
    done <"$here/lab_utils/host/packages.txt"
}
has() { # has PROGRAM
    command -v "$1" >/dev/null 2>&1 || [ -x "${SBIN:-/usr/sbin}/$1" ]
}
need() { # need PROGRAM [WHAT]
    has "$1" || want "${2:-$1}"
}
need_file() { # need_file PATH WHAT
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
    case "${python##*/}" in python3.*) package=${python##*/} ;; *) package=python3 ;; esac
    case "$manager" in # elsewhere, Python comes with what makes virtual environments
    dnf) ;;
    pacman) package=python ;;
    zypper) case "$package" in python3.*) package=python3${package#python3.} ;; esac ;;
    *) package=$package-venv ;;
    esac
    "$python" -c 'import venv, ensurepip' 2>/dev/null || add "$package"
    why="a virtual environment for Python"
elif [ "$(uname -s)" != Linux ]; then
    exit 0 # no embedded provider here: `lab doctor` says what can run instead
else
    need ip
    need nft
    need iptables
    need ipset
    need unshare util-linux
    has mmdebstrap || need debootstrap bootstrap # the one is quicker, and the other does
    need_file "${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}" debian-keys
    need ssh
    need bwrap
    need tcpdump
    # Three things are C or lean on it: runc, and what is in the images of pause and flannel. Where they can be downloaded, or are here
    # already, nothing compiles them. The rest is Go, for which pip fetches what compiles it.
    if ! made && silent https://github.com/ https://registry.k8s.io/ https://ghcr.io/; then
        need gcc
        need pkg-config
        need_file /usr/include/stdio.h libc
        need_file /usr/include/seccomp.h libseccomp
    fi
    why="nodes as Linux namespaces (iproute2, nftables), their Debian root (mmdebstrap or debootstrap), grading in a sandbox (bubblewrap)"
fi
[ -n "$missing$unknown" ] || exit 0

case "$manager" in
apt-get) ;;
dnf) install="dnf install" ;;
pacman) install="pacman -S --needed" ;;
zypper) install="zypper install" ;;
*) install="" ;;
esac
if [ "$manager" != apt-get ] || ! has apt-get; then
    if [ -z "$manager" ] || [ "$manager" = apt-get ]; then
        echo "lab: these are missing on this machine: install with your package manager what Debian calls$missing" >&2
        exit 2
    fi
    [ -z "$missing" ] || echo "lab: these are missing on this machine: install them with: sudo $install$missing" >&2
    [ -z "$unknown" ] || echo "lab: no package is known here for what Debian calls$unknown: get it from https://packages.debian.org" >&2
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
