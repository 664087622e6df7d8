"""HTTP/1.1 below the routes: what a connection and a request may take, and the log.

What the server relies on in uvicorn and httptools without their promise is in here and nowhere else.
"""
