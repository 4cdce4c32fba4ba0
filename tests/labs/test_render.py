from __future__ import annotations

from lab_utils.labs.outcome import CheckResult
from lab_utils.labs.render import Note, Report, Table

EVIL = '<img src=x onerror="alert(1)"></script>'


def test_what_comes_from_a_cluster_or_an_answer_is_escaped() -> None:
    result = CheckResult("split", 5, 0, "failed", expected=EVIL, seen=EVIL, look=EVIL, message=EVIL)
    for shown in (Report([result], {"split": EVIL}, note=EVIL), Note(EVIL), Table([EVIL], [[EVIL]], EVIL, EVIL)):
        assert "<img" not in shown.html()
        assert "&lt;img" in shown.html()


def test_a_failure_reads_expected_seen_look() -> None:
    text = Report([CheckResult("split", 5, 2.5, "failed", expected="0.5", seen="0.3\n0.2", look="iptables-save")]).text()
    assert text.splitlines() == [
        "✘ split                        2.5/5",
        "    expected  0.5",
        "    seen      0.3",
        "              0.2",
        "    look      iptables-save",
    ]


def test_points_that_the_cluster_cannot_give_do_not_count() -> None:
    report = Report([CheckResult("a", 5, 5, "passed"), CheckResult("ipvs", 10, 0, "skipped", missing="IP_VS")])
    assert (report.earned, report.points) == (5, 5)
    assert "5 of 5 points" in report.text()


def test_jupyter_gets_html_and_text() -> None:
    bundle = Report([CheckResult("a", 5, 5, "passed")])._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/plain"] == "✔ a                            5/5"


def test_words_in_backticks_are_code_and_a_lone_backtick_is_not() -> None:
    assert "<code>lab.hint()</code>" in Note("see `lab.hint()`").html()
    assert "a ` b" in Note("a ` b").html()
