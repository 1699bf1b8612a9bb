#!/usr/bin/python3
"""Listens on a port and says nothing: something that was not meant to be there."""
import socket
import sys

with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
