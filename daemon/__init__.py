"""The process: command line, settings, storage, the loops, and the web server. `daemon.app` puts it together.

Floors, an import only goes down: `app, cli > web > ingest, bus, jobs > store > model, settings, clock, log, lock`, then
`connectors` and `streams`. A test says so (`tests/unit/test_floors.py`).
"""
