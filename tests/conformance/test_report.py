"""What is counted of a JUnit file as ginkgo writes it."""

from __future__ import annotations

from tests.conformance.report import Result, read, table

XML = """<testsuites><testsuite>
<testcase name="[It] [sig-network] DNS should resolve [Conformance] [sig-network, Conformance]" status="passed" time="4.5"/>
<testcase name="[It] [sig-node] Pods should run [Conformance]" status="failed" time="1">
  <failure message="timed out">where</failure></testcase>
<testcase name="[It] [sig-node] Sysctls should be set [Conformance]" status="skipped" time="0">
  <skipped message="skipped - needs Linux"/></testcase>
<testcase name="[It] [sig-node] Pods left out by the choice [Conformance]" status="skipped" time="0"><skipped message="skipped"/></testcase>
<testcase name="[It] [sig-node] Pods left out for a reason [Conformance]" status="skipped" time="0"><skipped message="skipped"/></testcase>
<testcase name="[It] [sig-storage] Volumes [Conformance]" status="skipped" time="0"><skipped message="skipped"/></testcase>
<testcase name="[SynchronizedBeforeSuite]" status="passed" time="2"/>
</testsuite></testsuites>"""


LEFT_OUT = {"Pods left out for": "it needs a registry"}


def test_what_ran_is_counted_and_what_was_not_chosen_is_not() -> None:
    assert read(XML, LEFT_OUT) == [
        Result("[sig-network] DNS should resolve [Conformance] [sig-network, Conformance]", "sig-network", "passed", 4.5),
        Result("[sig-node] Pods left out for a reason [Conformance]", "sig-node", "skipped", 0.0, "it needs a registry"),
        Result("[sig-node] Pods should run [Conformance]", "sig-node", "failed", 1.0, "timed out"),
        Result("[sig-node] Sysctls should be set [Conformance]", "sig-node", "skipped", 0.0, "skipped - needs Linux"),
    ]


def test_the_table_adds_up() -> None:
    assert table(read(XML, LEFT_OUT)).splitlines()[2:] == [
        "| sig-network | 1 | 0 | 0 |",
        "| sig-node | 0 | 1 | 2 |",
        "| together | 1 | 1 | 2 |",
    ]
