#!/bin/bash
# Makes a node of a plain Debian machine: unpacks what `lab` sent and runs the scripts of provision/ in their order.
#
#   KIO_PAUSE   the name of the pause image
#
# The archive holds bin/, provision/, and images: the names of those that every cluster needs and that registries have.
set -euo pipefail
folder=/var/tmp/kio
rm -rf "$folder"
mkdir -p "$folder"
tar -xf /tmp/kio.tar -C "$folder"
export KIO_BIN="$folder/bin" KIO_PAUSE
for script in "$folder"/provision/[0-9]*.sh; do
    echo "$(basename "$script")"
    bash "$script"
done
install -D -m 644 "$folder/images" /usr/local/share/kubernetes-inside-out/images
rm -rf "$folder" /tmp/kio.tar
