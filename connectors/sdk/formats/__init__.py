"""What files look like: tables of rows (CSV, NDJSON), encodings, compression, PGP. Imports nothing above itself.

All of it takes pieces as they come and gives pieces, in bounded memory, and waits for nothing but a process of its own:
who reads from a disk does that, and this work, in a thread.
"""
