#!/bin/bash
# Makes recorded.txt: boots Debian's own kernel, which has IP_VS and ipip, in QEMU without acceleration (about a minute), and runs scenario.sh in it.
# Needs qemu-system-x86, apt, tcpdump, curl and iproute2 on an amd64 Debian 12. Everything else is downloaded into a folder that goes again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
mkdir deb x root root/{bin,proc,sys,dev,run,tmp,etc,srv} root/lib/modules
kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2}')
(cd deb && apt-get download -qq "$kernel" ipvsadm libnl-genl-3-200 libnl-3-200 libpopt0 busybox-static kmod)
for deb in deb/*.deb; do dpkg -x "$deb" x; done
cp x/bin/busybox root/bin/
for applet in sh mount modprobe insmod cat echo sleep sort uniq head wc mkdir killall poweroff uname sysctl; do ln -s busybox "root/bin/$applet"; done
cp "$(command -v ip)" "$(command -v tcpdump)" "$(command -v curl)" x/sbin/ipvsadm root/bin/
for program in ip tcpdump curl ipvsadm; do
  LD_LIBRARY_PATH=$work/x/lib/x86_64-linux-gnu:$work/x/usr/lib/x86_64-linux-gnu ldd root/bin/$program
done | awk '{print ($2 == "=>") ? $3 : $1}' | grep ^/ | sort -u | while read -r library; do
  mkdir -p "root$(dirname "${library#"$work/x"}")"; cp -L "$library" "root${library#"$work/x"}"
done
version=$(basename x/lib/modules/*)
mkdir -p "root/lib/modules/$version/kernel/drivers/net"
cp -r "x/lib/modules/$version/kernel/net" "x/lib/modules/$version/kernel/lib" "root/lib/modules/$version/kernel/"
cp "x/lib/modules/$version/kernel/drivers/net/veth.ko" "root/lib/modules/$version/kernel/drivers/net/"
cp "x/lib/modules/$version/"modules.{builtin,order} "root/lib/modules/$version/"
ln -s "$work/x/bin/kmod" depmod && ./depmod -b root "$version"
printf 'root:x:0:0::/:/bin/sh\ntcpdump:x:0:0::/:/bin/sh\n' > root/etc/passwd
cp "$here/scenario.sh" root/
cat > root/init <<'I'
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp
sh /scenario.sh > /dev/ttyS1 2>&1
poweroff -f
I
chmod +x root/init
(cd root && find . | ../x/bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) > initrd.gz
timeout 900 qemu-system-x86_64 -accel tcg -m 512 -nographic -no-reboot -kernel x/boot/vmlinuz-* -initrd initrd.gz \
  -append "console=ttyS0 quiet panic=-1" -nic none -serial file:console.log -serial file:recorded.txt -monitor none
cp recorded.txt "$here/recorded.txt"
