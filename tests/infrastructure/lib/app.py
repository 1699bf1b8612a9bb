#!/usr/bin/python3
"""The application behind nginx: pages that are read from one database and orders that are written to another.

/            counts the orders          /product/N   one row
/order       writes one                 /health      asks both databases, and is not logged
/slow?ms=N   takes its time             /broken      raises, and logs the traceback
"""
import argparse
import queue
import socketserver
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pymysql

DATABASE = {"user": "shop", "password": "shop", "database": "shop", "autocommit": True}


class Pool:
    """Connections to one database; a broken one is thrown away."""

    def __init__(self, host):
        self.host = host
        self.idle = queue.LifoQueue()

    def query(self, text, *values):
        try:
            connection = self.idle.get_nowait()
        except queue.Empty:
            connection = pymysql.connect(host=self.host, connect_timeout=2, read_timeout=5, write_timeout=5, **DATABASE)
        try:
            with connection.cursor() as cursor:
                cursor.execute(text, values)
                row = cursor.fetchone() or (cursor.lastrowid,)
        except BaseException:
            connection.close()
            raise
        self.idle.put(connection)
        return row[0]


class Log:
    """One line an event: time, level, text."""

    def __init__(self, path):
        self.file = open(path, "a", buffering=1, encoding="utf-8")
        self.lock = threading.Lock()

    def say(self, level, text):
        now = time.time()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
        with self.lock:
            self.file.write(f"{moment} {level} {text}\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        url = urlsplit(self.path)
        try:
            status, text = self.page(url)
        except Exception as error:
            status, text = 500, f"{error}\n"
            self.server.log.say("ERROR", f"{url.path}: {traceback.format_exc()}".rstrip())
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-App", self.server.name)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if url.path != "/health":
            self.server.log.say("INFO", f"{self.command} {url.path} {status}")

    do_HEAD = do_GET

    def page(self, url):
        read, write = self.server.read.query, self.server.write.query
        if url.path == "/":
            return 200, f"{read('SELECT COUNT(*) FROM orders')} orders\n"
        if url.path == "/order":
            number = write("INSERT INTO orders (note) VALUES (%s)", self.server.name)
            return 200, f"order {number}\n"
        if url.path.startswith("/product/") and url.path[9:].isdecimal():
            name = read("SELECT name FROM products WHERE id = %s", int(url.path[9:]))
            return (200, f"{name}\n") if name else (404, "no such product\n")
        if url.path == "/health":
            return 200, f"{read('SELECT 1') + write('SELECT 1')}\n"
        if url.path == "/slow":
            time.sleep(int(parse_qs(url.query).get("ms", ["100"])[0]) / 1000)
            return 200, "at last\n"
        if url.path == "/broken":
            raise RuntimeError("this page is broken")
        return 404, "no such page\n"

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


def main():
    parser = argparse.ArgumentParser()
    for name in ("name", "listen", "read", "write", "log"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    host, port = options.listen.rsplit(":", 1)
    server = Server((host, int(port)), Handler)
    server.name, server.log = options.name, Log(options.log)
    server.read, server.write = Pool(options.read), Pool(options.write)
    server.log.say("INFO", f"{options.name} listens on {options.listen}")
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
