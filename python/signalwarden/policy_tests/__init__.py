"""Tests of policies: cases below `tests/` of a directory, decided offline by the same core as a request of Envoy.

`reading` makes cases of files, `stage` plays one, `judging` holds it against what it expects, `running` runs them all,
and `coverage` counts what they reached.
"""
