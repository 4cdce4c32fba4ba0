"""A rule of `nft -j` as nft itself would write it, near enough to be read."""

from __future__ import annotations

from typing import Any

INFIX = ("&", "|", "^", "<<", ">>")


def expression(said: Any) -> str:
    if isinstance(said, list):
        return ",".join(expression(each) for each in said)
    if not isinstance(said, dict) or len(said) != 1:
        return str(said)
    ((kind, value),) = said.items()
    if kind in INFIX:
        return f" {kind} ".join(expression(each) for each in value)
    if kind == "payload":
        return (
            f"{value['protocol']} {value['field']}"
            if "field" in value
            else f"@{value.get('base')},{value.get('offset')},{value.get('len')}"
        )
    if kind == "meta":
        return f"meta {value['key']}"
    if kind == "ct":
        return f"ct {value['dir'] + ' ' if 'dir' in value else ''}{value['key']}"
    if kind == "fib":
        return f"fib {' . '.join(_list(value.get('flags')))} {value['result']}"
    if kind == "concat":
        return " . ".join(expression(each) for each in value)
    if kind == "prefix":
        return f"{expression(value['addr'])}/{value['len']}"
    if kind == "range":
        return f"{expression(value[0])}-{expression(value[1])}"
    if kind == "set":
        return "{ " + ", ".join(_element(each) for each in _list(value)) + " }"
    if kind == "elem":
        return expression(value.get("val"))
    if kind == "numgen":
        return f"numgen {value['mode']} mod {value['mod']}" + (f" offset {value['offset']}" if value.get("offset") else "")
    if kind in ("jhash", "symhash"):
        return f"{kind} {expression(value.get('expr', ''))} mod {value.get('mod')}"
    if kind == "map":
        return f"{expression(value['key'])} map {expression(value['data'])}"
    if kind in ("jump", "goto"):
        return f"{kind} {value['target']}"
    return kind if value is None else f"{kind} {value}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _element(each: Any) -> str:
    return f"{expression(each[0])} : {expression(each[1])}" if isinstance(each, list) and len(each) == 2 else expression(each)


def statement(said: Any) -> str:
    if not isinstance(said, dict) or len(said) != 1:
        return str(said)
    ((kind, value),) = said.items()
    if kind == "match":
        op = "" if value["op"] in ("==", "in") else f"{value['op']} "
        return f"{expression(value['left'])} {op}{expression(value['right'])}"
    if kind == "vmap":
        return f"{expression(value['key'])} vmap {expression(value['data'])}"
    if kind == "mangle":
        return f"{expression(value['key'])} set {expression(value['value'])}"
    if kind in ("dnat", "snat"):
        port = f":{expression(value['port'])}" if "port" in value else ""
        return f"{kind} to {expression(value.get('addr', ''))}{port}"
    if kind in ("masquerade", "redirect"):
        port = f" to :{expression(value['port'])}" if isinstance(value, dict) and "port" in value else ""
        flags = f" {' '.join(_list(value['flags']))}" if isinstance(value, dict) and "flags" in value else ""
        return f"{kind}{port}{flags}"
    if kind == "set":
        return f"{value['op']} {value['set']} {{ {expression(value['elem'])} }}"
    if kind == "xt" and isinstance(value, dict):
        return f"xt {value.get('type')} {value.get('name')}"
    if kind in ("counter", "log", "reject", "limit", "queue", "quota", "notrack"):
        return str(kind)
    return expression(said)
