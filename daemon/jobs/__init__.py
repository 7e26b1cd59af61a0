"""The scheduler: starts what is due, and lets a run's verdict decide the job's next state.

May import `daemon.store`, `connectors` and what is below them; not the other loops, which `daemon.app` hands in.
"""
