"""HTTP: collection, the API and the console. The only package that imports `aiohttp.web`.

May import the loops (`daemon.ingest`, `daemon.bus`, `daemon.jobs`), `daemon.store` and what is below them.
"""
