"""Who may connect to whom: a truth table as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab_utils.draw.canvas import Canvas, Drawing
from lab_utils.draw.table import Table
from lab_utils.draw.text import middle

CELL, ROW, LEFT, TOP, PAD = 96.0, 38.0, 168.0, 96.0, 14.0
Answers = Mapping[str, Mapping[str, bool]]  # receiver → sender → whether a connection is possible


def truth(
    expected: Answers, seen: Answers | None = None, *, isolated: Mapping[str, Sequence[str]] | None = None, title: str = ""
) -> Drawing:
    """A row for each sender, a column for each receiver. `seen`, what really happened, is compared with it, cell by cell.

    `isolated` says for a Pod in which directions it is: "Ingress" shows above its column, "Egress" beside its row.
    """
    receivers = list(expected)
    senders = list(dict.fromkeys([*receivers, *(sender for row in expected.values() for sender in row)]))
    title = title or "Who may connect to whom"
    chosen = isolated or {}
    canvas = Canvas()
    canvas.text(PAD, 26, title, "strong", size=15)
    canvas.text(PAD, TOP - 12, "from ↓   to →", "soft", size=11)
    for column, receiver in enumerate(receivers):
        x = LEFT + column * CELL + CELL / 2
        namespace, _, name = receiver.rpartition("/")
        canvas.text(x, TOP - 28, middle(name, 14), "mono strong", size=11, anchor="middle")
        canvas.text(x, TOP - 14, namespace, "mono soft", size=9.5, anchor="middle")
        if "Ingress" in chosen.get(receiver, ()):
            canvas.text(x, TOP - 43, "ingress isolated", "lit2", size=9.5, anchor="middle")
    rows = []
    for line, sender in enumerate(senders):
        y = TOP + line * ROW
        namespace, _, name = sender.rpartition("/")
        canvas.text(PAD, y + 17, middle(name, 18), "mono strong", size=11)
        canvas.text(PAD, y + 30, namespace, "mono soft", size=9.5)
        if "Egress" in chosen.get(sender, ()):
            canvas.text(LEFT - 8, y + 17, "egress", "lit2", size=9.5, anchor="end")
            canvas.text(LEFT - 8, y + 29, "isolated", "lit2", size=9.5, anchor="end")
        words = [sender]
        for column, receiver in enumerate(receivers):
            words.append(_cell(canvas, LEFT + column * CELL, y, sender, receiver, expected, seen))
        rows.append(words)
    told = [f"{row[0]} to {receiver}: {word}" for row in rows for receiver, word in zip(receivers, row[1:], strict=True) if word]
    width = LEFT + len(receivers) * CELL + PAD
    return canvas.finish(width, TOP + len(senders) * ROW + PAD, title, "; ".join(told), Table.of(("from", *receivers), rows))


def _cell(canvas: Canvas, x: float, y: float, sender: str, receiver: str, expected: Answers, seen: Answers | None) -> str:
    """A cell says it with a colour, a sign and a frame; its word is for the table."""
    if sender not in expected[receiver]:
        canvas.rect(x + 3, y + 3, CELL - 6, ROW - 6, "node")
        return ""
    right = expected[receiver][sender]
    happened = seen[receiver][sender] if seen is not None else right
    word = "yes" if happened else "no"
    wrong = happened != right
    with canvas.group(f"{sender} to {receiver}: {word}" + (f", and the policies say {'yes' if right else 'no'}" if wrong else "")):
        look = "lit3 s-lit3" if happened else "none s-frame"
        canvas.rect(x + 3, y + 3, CELL - 6, ROW - 6, look, dash="" if happened else "3 3")
        ink = "onlit strong" if happened else "soft"
        canvas.text(x + CELL / 2, y + ROW / 2 + 4, f"{word}!" if wrong else word, ink, size=12, anchor="middle")
        if wrong:
            canvas.rect(x + 1, y + 1, CELL - 2, ROW - 2, "none s-bad", width=3)
    return f"{word}, against the policies" if wrong else word
