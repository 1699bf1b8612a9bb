#!/usr/bin/python3
"""Asks HAProxy's socket one question and prints the answer."""
import socket
import sys

with socket.socket(socket.AF_UNIX) as asked:
    asked.connect(sys.argv[1])
    asked.sendall(sys.argv[2].encode() + b"\n")
    while part := asked.recv(65536):
        sys.stdout.write(part.decode())
