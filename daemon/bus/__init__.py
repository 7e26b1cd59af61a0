"""From the trigger log to its listeners: each subscription is a filter and a cursor over the one log.

Imports `daemon.store`, `daemon.model`, `connectors.sdk` and `streams`; `daemon.app` hands it to the other loops.
"""
