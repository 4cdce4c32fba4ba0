"""The truth table as a picture: its facts, and names that somebody meant ill."""

from __future__ import annotations

from xml.etree import ElementTree

from lab_utils.draw.truth import truth

A, B = "shop/a", 'shop/<script>"&\x1b'
RIGHT = {A: {B: True}, B: {A: False}}


def test_the_table_says_who_reaches_whom() -> None:
    assert truth(RIGHT).table.rows == ((A, "", "no"), ('shop/<script>"&\ufffd', "yes", ""))


def test_what_happens_against_the_policies_is_said_in_words_and_framed() -> None:
    agrees, differs = truth(RIGHT, RIGHT), truth(RIGHT, {A: {B: False}, B: {A: False}})
    assert "against" not in str(agrees) and "s-bad" not in agrees.svg.partition("</style>")[2]
    assert "no, against the policies" in str(differs) and "s-bad" in differs.svg.partition("</style>")[2]


def test_a_sender_that_receives_nothing_has_a_row() -> None:
    assert [row[0] for row in truth({A: {"outside": True}}).table.rows] == [A, "outside"]


def test_the_picture_is_well_formed_whatever_a_name_holds() -> None:
    svg = truth(RIGHT, isolated={B: ["Ingress", "Egress"]}).svg
    ElementTree.fromstring(svg)
    assert "<script>" not in svg
    assert svg == truth(RIGHT, isolated={B: ["Ingress", "Egress"]}).svg
