"""The outside world: every module here but `sdk` is a provider, and declares itself in `PROVIDER`.

A provider imports `connectors.sdk` and `streams`, and nothing of `daemon`. `README.md` says how to add one.
"""
