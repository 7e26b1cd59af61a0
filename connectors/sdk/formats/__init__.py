"""What files look like: delimited text, NDJSON, compression. Imports nothing above `connectors.sdk`."""
