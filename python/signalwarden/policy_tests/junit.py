"""Results as JUnit XML, in the form of pytest's `xunit2`, which the tools of CI read."""

from __future__ import annotations

import re
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from signalwarden.policy_tests.running import Result, Results

__all__ = ["junit"]

SUITES: Final = "signalwarden"
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document can hold, in any spelling."""


def junit(results: Results, *, host: str, now: datetime) -> bytes:
    """One suite for each file of cases."""
    root = ET.Element("testsuites", name=SUITES)
    for file, group in groupby(results.all, key=lambda result: result.case.place.file):
        cases = [*group]
        suite = ET.SubElement(root, "testsuite", name=_text(file))
        _count(suite, cases)
        suite.set("timestamp", now.strftime("%Y-%m-%dT%H:%M:%S"))
        suite.set("hostname", _text(host))
        for result in cases:
            _case(suite, file, result)
    _count(root, results.all)
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return content


def _count(element: ET.Element, results: list[Result]) -> None:
    for key, number in (
        ("tests", len(results)),
        ("failures", sum(result.status == "failed" for result in results)),
        ("errors", sum(result.status == "error" for result in results)),
    ):
        element.set(key, str(number))
    if element.tag == "testsuite":
        element.set("skipped", "0")
    element.set("time", f"{sum(result.seconds for result in results):.3f}")


def _case(suite: ET.Element, file: str, result: Result) -> None:
    classname = file.removesuffix(".yaml").removesuffix(".yml").replace("/", ".")
    case = ET.SubElement(
        suite,
        "testcase",
        classname=_text(classname),
        name=_text(result.case.name),
        time=f"{result.seconds:.3f}",
    )
    if result.error is not None:
        told = ET.SubElement(case, "error", type="set_up", message=_text(result.error))
        told.text = _text(f"{result.case.place}: {result.error}")
    elif result.mismatches:
        first = result.mismatches[0]
        message = f"{first.what}: expected {first.expected}, decided {first.actual}"
        told = ET.SubElement(case, "failure", type=_text(first.what), message=_text(message))
        lines = [f"{one.what}: expected {one.expected}, decided {one.actual}" for one in result.mismatches]
        told.text = _text("\n".join([f"{result.case.place}: {result.case.name}", *lines]))


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
