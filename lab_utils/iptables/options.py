"""Which options exist, how many words each takes, and what type its value has.

One line per match or target: `option:type`, with `option` alone for a flag. The names are those that
iptables-save prints; `ALIASES` leads there from what a person may type. The sources are the manual page
iptables-extensions(8) and the `xt_option_entry` tables of iptables 1.8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lab_utils.iptables import values as v


def flags(mask: str, compared: str) -> tuple[frozenset[str], frozenset[str]]:
    """--tcp-flags: those looked at, and those of them that must be set."""
    known = frozenset({"FIN", "SYN", "RST", "PSH", "ACK", "URG"})

    def read(word: str) -> frozenset[str]:
        if word.upper() in ("ALL", "NONE"):
            return known if word.upper() == "ALL" else frozenset()
        names = v.upper_words(word)
        if not names <= known:
            raise ValueError(f"{', '.join(sorted(names - known))} is not a TCP flag")
        return names

    return read(mask), read(compared)


def two(first: str, second: str) -> tuple[str, str]:
    return first, second


# Type → (how many words, reader)
TYPES: dict[str, tuple[int, Callable[..., Any]]] = {
    "": (0, lambda: True),
    "text": (1, str),
    "two": (2, two),
    "int": (1, v.number),
    "net": (1, v.network),
    "iprange": (1, v.address_range),
    "ports": (1, v.ports),
    "portlist": (1, v.port_list),
    "length": (1, v.length),
    "masked": (1, v.masked),
    "proto": (1, v.protocol),
    "names": (1, v.upper_words),
    "ctstates": (1, v.ct_states),
    "addrtypes": (1, v.address_types),
    "probability": (1, v.fraction),
    "flags": (2, flags),
    "place": (1, v.place),
    "toports": (1, v.to_ports),
    "setuse": (2, v.set_use),
}

BASIC = {"-s": "net", "-d": "net", "-p": "proto", "-i": "text", "-o": "text", "-f": ""}

_PORTS = "--sport:ports --dport:ports"
_MATCHES = {
    "tcp": f"{_PORTS} --tcp-flags:flags --syn --tcp-option:int",
    "udp": _PORTS,
    "udplite": _PORTS,
    "sctp": f"{_PORTS} --chunk-types:two",
    "dccp": f"{_PORTS} --dccp-types:text --dccp-option:int",
    "icmp": "--icmp-type:text",
    "icmp6": "--icmpv6-type:text",
    "multiport": "--sports:portlist --dports:portlist --ports:portlist",
    "comment": "--comment:text",
    "statistic": "--mode:text --probability:probability --every:int --packet:int",
    "mark": "--mark:masked",
    "connmark": "--mark:masked",
    "conntrack": "--ctstate:ctstates --ctproto:proto --ctorigsrc:net --ctorigdst:net --ctreplsrc:net --ctrepldst:net --ctorigsrcport:ports"
    " --ctorigdstport:ports --ctreplsrcport:ports --ctrepldstport:ports --ctstatus:names --ctexpire:length --ctdir:text",
    "state": "--state:ctstates",
    "addrtype": "--src-type:addrtypes --dst-type:addrtypes --limit-iface-in --limit-iface-out",
    "recent": "--name:text --set --rcheck --update --remove --seconds:int --reap --hitcount:int --rttl --rsource --rdest --mask:text",
    "set": "--match-set:setuse --return-nomatch --update-counters --update-subcounters --packets-eq:int --packets-lt:int --packets-gt:int"
    " --bytes-eq:int --bytes-lt:int --bytes-gt:int",
    "physdev": "--physdev-in:text --physdev-out:text --physdev-is-in --physdev-is-out --physdev-is-bridged",
    "limit": "--limit:text --limit-burst:int",
    "hashlimit": "--hashlimit:text --hashlimit-upto:text --hashlimit-above:text --hashlimit-burst:text --hashlimit-mode:text"
    " --hashlimit-srcmask:int --hashlimit-dstmask:int --hashlimit-name:text --hashlimit-htable-size:int --hashlimit-htable-max:int"
    " --hashlimit-htable-expire:int --hashlimit-htable-gcinterval:int --hashlimit-rate-match --hashlimit-rate-interval:text",
    "connlimit": "--connlimit-upto:int --connlimit-above:int --connlimit-mask:int --connlimit-saddr --connlimit-daddr",
    "connbytes": "--connbytes:text --connbytes-dir:text --connbytes-mode:text",
    "connlabel": "--label:text --set",
    "mac": "--mac-source:text",
    "owner": "--uid-owner:text --gid-owner:text --socket-exists --suppl-groups",
    "iprange": "--src-range:iprange --dst-range:iprange",
    "length": "--length:length",
    "ttl": "--ttl-eq:int --ttl-lt:int --ttl-gt:int",
    "hl": "--hl-eq:int --hl-lt:int --hl-gt:int",
    "tos": "--tos:text",
    "dscp": "--dscp:text --dscp-class:text",
    "ecn": "--ecn-tcp-cwr --ecn-tcp-ece --ecn-ip-ect:int",
    "time": "--datestart:text --datestop:text --timestart:text --timestop:text --monthdays:text --weekdays:text"
    " --kerneltz --contiguous --utc --localtz",
    "pkttype": "--pkt-type:text",
    "rpfilter": "--loose --validmark --accept-local --invert",
    "string": "--algo:text --from:int --to:int --string:text --hex-string:text --icase",
    "u32": "--u32:text",
    "bpf": "--bytecode:text --object-pinned:text",
    "nfacct": "--nfacct-name:text",
    "cgroup": "--path:text --cgroup:text",
    "socket": "--transparent --nowildcard --restore-skmark",
    "policy": "--dir:text --pol:text --strict --reqid:text --spi:text --proto:text --mode:text --tunnel-src:text --tunnel-dst:text --next",
    "helper": "--helper:text",
    "realm": "--realm:text",
    "quota": "--quota:int",
    "cpu": "--cpu:int",
    "devgroup": "--src-group:text --dst-group:text",
    "esp": "--espspi:text",
    "ah": "--ahspi:text --ahlen:text --ahres",
    "frag": "--fragid:text --fraglen:int --fragres --fragfirst --fragmore --fraglast",
    "rt": "--rt-type:text --rt-segsleft:text --rt-len:text --rt-0-res --rt-0-addrs:text --rt-0-not-strict",
    "ipv6header": "--header:text --soft",
    "hbh": "--hbh-len:text --hbh-opts:text",
    "dst": "--dst-len:text --dst-opts:text",
    "tcpmss": "--mss:length",
    "ipvs": "--ipvs --vproto:text --vaddr:text --vport:text --vdir:text --vmethod:text --vportctl:text",
    "cluster": "--cluster-total-nodes:int --cluster-local-node:int --cluster-local-nodemask:text --cluster-hash-seed:text",
    "eui64": "",
    "unclean": "",
}
_TARGETS = {
    "ACCEPT": "",
    "DROP": "",
    "RETURN": "",
    "QUEUE": "",
    "REJECT": "--reject-with:text",
    "DNAT": "--to-destination:place --random --persistent",
    "SNAT": "--to-source:place --random --random-fully --persistent",
    "MASQUERADE": "--to-ports:toports --random --random-fully",
    "REDIRECT": "--to-ports:toports --random",
    "NETMAP": "--to:net",
    "MARK": "--set-mark:masked --set-xmark:masked --and-mark:int --or-mark:int --xor-mark:int",
    "CONNMARK": "--set-mark:masked --set-xmark:masked --save-mark --restore-mark --and-mark:int --or-mark:int --xor-mark:int --mask:int"
    " --nfmask:int --ctmask:int --left-shift-mark:int --right-shift-mark:int",
    "LOG": "--log-level:text --log-prefix:text --log-tcp-sequence --log-tcp-options --log-ip-options --log-uid --log-macdecode",
    "NFLOG": "--nflog-group:int --nflog-prefix:text --nflog-range:int --nflog-size:int --nflog-threshold:int",
    "ULOG": "--ulog-nlgroup:int --ulog-prefix:text --ulog-cprange:int --ulog-qthreshold:int",
    "NFQUEUE": "--queue-num:int --queue-balance:text --queue-bypass --queue-cpu-fanout",
    "CT": "--notrack --helper:text --ctevents:text --expevents:text --zone:text --zone-orig:text --zone-reply:text --timeout:text",
    "NOTRACK": "",
    "TCPMSS": "--set-mss:int --clamp-mss-to-pmtu",
    "TCPOPTSTRIP": "--strip-options:text",
    "TPROXY": "--on-port:int --on-ip:text --tproxy-mark:masked",
    "SET": "--add-set:setuse --del-set:setuse --map-set:setuse --exist --timeout:int --map-mark --map-prio --map-queue",
    "CHECKSUM": "--checksum-fill",
    "CLASSIFY": "--set-class:text",
    "DSCP": "--set-dscp:text --set-dscp-class:text",
    "TOS": "--set-tos:text --and-tos:text --or-tos:text --xor-tos:text",
    "TTL": "--ttl-set:int --ttl-inc:int --ttl-dec:int",
    "HL": "--hl-set:int --hl-inc:int --hl-dec:int",
    "TRACE": "",
    "AUDIT": "--type:text",
    "TEE": "--gateway:text --oif:text",
    "ECN": "--ecn-tcp-remove",
    "SECMARK": "--selctx:text",
    "CONNSECMARK": "--save --restore",
    "IDLETIMER": "--timeout:int --label:text --alarm --send_nl_msg:text",
    "SYNPROXY": "--sack-perm --timestamp --wscale:int --mss:int --ecn",
    "CLUSTERIP": "--new --hashmode:text --clustermac:text --total-nodes:int --local-node:int --hash-init:text",
    "HMARK": "--hmark-tuple:text --hmark-mod:text --hmark-offset:text --hmark-src-prefix:text --hmark-dst-prefix:text"
    " --hmark-sport-mask:text --hmark-dport-mask:text --hmark-spi-mask:text --hmark-proto-mask:text --hmark-rnd:text",
    "RATEEST": "--rateest-name:text --rateest-interval:text --rateest-ewmalog:text",
    "LED": "--led-trigger-id:text --led-delay:text --led-always-blink",
    "DNPT": "--src-pfx:net --dst-pfx:net",
    "SNPT": "--src-pfx:net --dst-pfx:net",
}
ALIASES = {
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--protocol": "-p",
    "--proto": "-p",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--fragment": "-f",
    "--match": "-m",
    "--jump": "-j",
    "--goto": "-g",
    "--source-port": "--sport",
    "--destination-port": "--dport",
    "--source-ports": "--sports",
    "--destination-ports": "--dports",
    "--port": "--ports",
    "--ttl": "--ttl-eq",
    "--hl": "--hl-eq",
    "--set-counters": "-c",
}


class Known(NamedTuple):
    """What is known of one option."""

    words: int
    read: Callable[..., Any]


def _table(lines: dict[str, str]) -> dict[str, dict[str, Known]]:
    table: dict[str, dict[str, Known]] = {}
    for name, line in lines.items():
        entries = (entry.partition(":") for entry in line.split())
        table[name] = {option: Known(*TYPES[kind]) for option, _, kind in entries}
    return table


MATCHES = _table(_MATCHES)
MATCHES["icmpv6"] = MATCHES["icmp6"]
TARGETS = _table(_TARGETS)
BASICS = {option: Known(*TYPES[kind]) for option, kind in BASIC.items()}
# `-p tcp` alone makes --dport known, as in iptables: the protocol's own match is loaded without -m.
IMPLIED = {
    6: ("tcp",),
    17: ("udp",),
    132: ("sctp",),
    33: ("dccp",),
    136: ("udplite",),
    1: ("icmp",),
    58: ("icmp6",),
    50: ("esp",),
    51: ("ah",),
    135: ("mh",),
}
VERDICTS = frozenset({"ACCEPT", "DROP", "RETURN", "QUEUE"})
BUILT_IN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
