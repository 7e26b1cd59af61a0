"""The API, one module a resource: each gives its routes, and wraps its handlers in `daemon.web.envelope.endpoint`."""
