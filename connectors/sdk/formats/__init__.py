"""What files look like: tables of rows (CSV, NDJSON), encodings, compression. Imports nothing above `connectors.sdk`.

All of it takes pieces as they come and gives pieces, in bounded memory, and waits for nothing: who reads from a disk
does that, and this work, in a thread.
"""
