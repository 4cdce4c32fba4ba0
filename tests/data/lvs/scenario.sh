#!/bin/sh
# Runs in the guest that record.sh boots. One LAN: a client, a balancer, two servers, each a network namespace on one bridge.
# The balancer is the kernel's LVS, first with NAT, then with direct routing, then with tunnels.
ip() { /bin/ip "$@"; }
say() { echo "### $*"; }
at() { ns=$1; shift; ip netns exec $ns "$@"; }
for m in veth bridge ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_sh ipip nf_conntrack xt_conntrack af_packet; do modprobe $m 2>/dev/null; done
say kernel; uname -r
ip link add lan type bridge; ip link set lan up
for n in client lb s1 s2; do
  ip netns add $n; at $n ip link set lo up
  ip link add $n type veth peer name eth0 netns $n; ip link set $n master lan up; at $n ip link set eth0 up
  for k in all default; do at $n sysctl -w net.ipv4.conf.$k.rp_filter=0 net.ipv4.conf.$k.send_redirects=0 >/dev/null; done
done
at client ip address add 192.0.2.1/24 dev eth0
at lb ip address add 192.0.2.254/24 dev eth0; at lb ip address add 192.0.2.80/32 dev eth0; at lb ip address add 198.51.100.254/24 dev eth0
at lb sysctl -w net.ipv4.ip_forward=1 >/dev/null
for n in 1 2; do
  at s$n ip address add 198.51.100.1$n/24 dev eth0; at s$n ip route add default via 198.51.100.254
  mkdir -p /srv/s$n; echo s$n > /srv/s$n/index.html; at s$n busybox httpd -p 80 -h /srv/s$n
done
sleep 1
round() {
  say "$1"
  at lb ipvsadm -Ln
  at lb tcpdump -nn -e -tt -U -i eth0 -w /tmp/lb.pcap tcp or proto 4 2>/dev/null & p=$!
  at s1 tcpdump -nn -U -i eth0 -w /tmp/s1.pcap tcp or proto 4 2>/dev/null & q=$!
  sleep 6
  say "$1: answers"; for i in 1 2 3 4 5 6; do at client curl -s --max-time 5 http://192.0.2.80/ || echo none; done
  say "$1: connections"; at lb ipvsadm -Lnc
  sleep 3; killall tcpdump; sleep 1
  say "$1: at the balancer, the first connection"; tcpdump -nn -e -t -q -r /tmp/lb.pcap 2>/dev/null | head -14
  say "$1: packets at the balancer"
  m=$(at lb cat /sys/class/net/eth0/address)
  echo "in $(tcpdump -nn -r /tmp/lb.pcap ether dst $m 2>/dev/null | wc -l)"; echo "out $(tcpdump -nn -r /tmp/lb.pcap ether src $m 2>/dev/null | wc -l)"
  say "$1: at s1"; tcpdump -nn -t -q -r /tmp/s1.pcap 2>/dev/null | head -8
  at lb ipvsadm -C
}
at lb ipvsadm -A -t 192.0.2.80:80 -s rr
for n in 1 2; do at lb ipvsadm -a -t 192.0.2.80:80 -r 198.51.100.1$n:80 -m; done
round nat
for n in 1 2; do
  at s$n ip address add 192.0.2.1$n/24 dev eth0
  at s$n sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 >/dev/null
  at s$n ip address add 192.0.2.80/32 dev lo
done
at lb ipvsadm -A -t 192.0.2.80:80 -s rr
for n in 1 2; do at lb ipvsadm -a -t 192.0.2.80:80 -r 192.0.2.1$n:80 -g; done
round dr
for n in 1 2; do at s$n ip link set tunl0 up; at s$n ip address del 192.0.2.80/32 dev lo; at s$n ip address add 192.0.2.80/32 dev tunl0; done
at lb ipvsadm -A -t 192.0.2.80:80 -s rr
for n in 1 2; do at lb ipvsadm -a -t 192.0.2.80:80 -r 198.51.100.1$n:80 -i; done
round tun
say wrr; at lb ipvsadm -A -t 192.0.2.80:80 -s wrr
for n in 1 2; do at lb ipvsadm -a -t 192.0.2.80:80 -r 198.51.100.1$n:80 -i -w $((4-n)); done
for i in 1 2 3 4 5 6 7 8 9 10; do at client curl -s --max-time 5 http://192.0.2.80/ || echo none; done | sort | uniq -c
say sh; at lb ipvsadm -E -t 192.0.2.80:80 -s sh
for i in 1 2 3 4 5 6; do at client curl -s --max-time 5 http://192.0.2.80/ || echo none; done | sort | uniq -c
say end
