"""From Pods through claims and volumes to folders on nodes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from lab_utils.draw.canvas import Canvas, Drawing
from lab_utils.draw.table import Table
from lab_utils.draw.text import middle
from lab_utils.volumes import Chain, User, Volume

BOX, SLOT, GAP, PAD = 44.0, 26.0, 16.0, 14.0  # height of a box, of one of several Pods, between rows, at the edges
POD, CLAIM, VOLUME, FOLDER = (14.0, 168.0), (224.0, 176.0), (442.0, 196.0), (690.0, 262.0)  # x and width of the columns
WIDTH = FOLDER[0] + FOLDER[1] + 2 * PAD


def volumes(chains: Sequence[Chain], title: str = "Who has which storage") -> Drawing:
    """Each Pod, the claim that it mounts, the volume that the claim is bound to, and the folder on a node behind it."""
    canvas = Canvas()
    canvas.text(PAD, 26, title, "strong", size=15)
    for (x, _), words in zip((POD, CLAIM, VOLUME, FOLDER), ("Pods", "claims (PVC)", "volumes (PV)", "folders on nodes"), strict=True):
        canvas.text(x, 50, words, "soft", size=11.5)
    y = 62.0
    for where, group in groupby(chains, key=_place):
        rows = list(group)
        height = sum(_height(row) + GAP for row in rows) + GAP
        if where is not None:
            canvas.rect(FOLDER[0] - PAD, y, FOLDER[1] + 2 * PAD, height - 6, "node s-frame", radius=8, width=1.5)
            canvas.text(FOLDER[0] + FOLDER[1] + 4, y + 15, where or "whichever node", "mono strong", size=11, anchor="end")
        y += GAP
        for row in rows:
            _row(canvas, row, y)
            y += _height(row) + GAP
    told = "; ".join(_sentence(chain) for chain in chains) or "There is nothing."
    headers = ("Pods", "claim", "its phase", "volume", "its phase", "folder", "nodes")
    return canvas.finish(WIDTH, y + 10, title, told, Table.of(headers, [_cells(chain) for chain in chains]))


def _place(chain: Chain) -> str | None:
    return ", ".join(chain.volume.nodes) if chain.volume else None


def _height(chain: Chain) -> float:
    return max(BOX, SLOT * len(chain.users))


def _row(canvas: Canvas, chain: Chain, y: float) -> None:
    centre = y + _height(chain) / 2
    claim, volume = chain.claim, chain.volume
    top = centre - BOX / 2
    for index, user in enumerate(chain.users):
        at = centre + (index - (len(chain.users) - 1) / 2) * SLOT
        _pod(canvas, user, at)
        canvas.curve(POD[0] + POD[1], at, CLAIM[0], centre, "s-cable", dash="" if user.phase == "Running" else "2 4")
    if claim:
        lines = (claim.name, f"asks {claim.asks} {'+'.join(claim.modes)}", _state(claim.phase, claim.leaving))
        _box(canvas, CLAIM, top, "stack s-stackline", lines, dashed=claim.phase != "Bound" or claim.leaving)
    if volume:
        lines = (volume.name, f"has {volume.size} {'+'.join(volume.modes)} · {volume.policy}", _state(volume.phase, volume.leaving))
        _box(canvas, VOLUME, top, "bridge s-bridgeline", lines, dashed=volume.phase != "Bound" or volume.leaving)
        canvas.line([(VOLUME[0] + VOLUME[1], centre), (FOLDER[0], centre)], "s-cable")
        canvas.rect(FOLDER[0], centre - 13, FOLDER[1], 26, "link s-linkline")
        with canvas.group(f"{volume.kind}: {volume.path}"):
            canvas.text(FOLDER[0] + 8, centre + 4, middle(volume.path or volume.kind, 42), "mono", size=10)
    if claim and volume:
        canvas.line([(CLAIM[0] + CLAIM[1], centre), (VOLUME[0], centre)], "s-lit3", width=2.5)


def _pod(canvas: Canvas, user: User, centre: float) -> None:
    with canvas.group(f"Pod {user.name}, {user.phase} on {user.node or 'no node'}"):
        waiting = user.phase != "Running"
        canvas.rect(POD[0], centre - 11, POD[1], 22, "pod s-podline", dash="4 3" if waiting else "")
        canvas.text(POD[0] + 7, centre + 4, middle(user.name, 17), "mono", size=10)
        canvas.text(POD[0] + POD[1] - 6, centre + 4, user.node or user.phase, "soft", size=10, anchor="end")


def _box(canvas: Canvas, column: tuple[float, float], top: float, classes: str, lines: tuple[str, str, str], *, dashed: bool) -> None:
    x, width = column
    with canvas.group("\n".join(lines)):
        canvas.rect(x, top, width, BOX, classes, dash="5 3" if dashed else "", width=1.5)
        canvas.text(x + 8, top + 17, middle(lines[0], 17 if column is CLAIM else 19), "mono strong", size=10.5)
        canvas.text(x + width - 7, top + 17, lines[2], "soft", size=10, anchor="end")
        canvas.text(x + 8, top + 34, lines[1], "soft", size=10.5)


def _state(phase: str, leaving: bool) -> str:
    return "Terminating" if leaving else phase


def _sentence(chain: Chain) -> str:
    users = ", ".join(user.name for user in chain.users)
    parts = [f"Pod {users} mounts" if users else "", f"claim {chain.claim.name} ({chain.claim.phase})" if chain.claim else ""]
    if chain.volume:
        parts.append(f"{'has ' if chain.claim else ''}volume {chain.volume.name} ({chain.volume.phase}), {_folder(chain.volume)}")
    return " ".join(part for part in parts if part)


def _folder(volume: Volume) -> str:
    return f"{volume.kind} {volume.path} on {', '.join(volume.nodes) or 'whichever node'}"


def _cells(chain: Chain) -> tuple[str, ...]:
    claim, volume = chain.claim, chain.volume
    return (
        ", ".join(f"{user.name} ({user.node or user.phase})" for user in chain.users),
        claim.name if claim else "",
        _state(claim.phase, claim.leaving) if claim else "",
        volume.name if volume else "",
        _state(volume.phase, volume.leaving) if volume else "",
        volume.path if volume else "",
        ", ".join(volume.nodes) or "any" if volume else "",
    )
