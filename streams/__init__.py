"""What happens to data: events, routing, mapping, identity, profiles, audiences, triggers. Pure.

No I/O, no clock, no asyncio: values in, values out. Imports the standard library, orjson, and in `ql.functions` the
libraries that the languages' functions need; nothing of `connectors` or `daemon`.
"""
