"""The life of jobs: created, run, put to sleep, failed, paused and taken up again after a restart.

Imports `daemon.store`, `daemon.model`, `connectors.sdk`; the bus is handed to it by `daemon.app`.
"""
