"""One language core with two statement heads: LQL maps events to fields, FilterQL selects profiles.

Stages are functions: parse, check, compile, then evaluate and boundary. Imports nothing above `streams`.
"""
