"""Rules without I/O: states of jobs and what moves them, outcomes of a delivery, which triggers a subscription wants.

Imports nothing of `daemon`.
"""
