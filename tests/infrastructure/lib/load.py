#!/usr/bin/python3
"""Sends exactly so many HTTPS requests and prints what came of each, as one JSON object.

Nothing is sent twice: a request whose answer did not come counts as failed.
"""
import argparse
import collections
import http.client
import json
import ssl
import sys
import threading
import time


def path_of(number, paths):
    if paths:
        return paths[number % len(paths)]
    # Of ten requests one writes, two count, and seven read a product.
    kind = number % 10
    return "/order" if kind == 0 else "/" if kind in (3, 6) else f"/product/{number % 100 + 1}"


class Load:
    def __init__(self, options):
        self.options = options
        self.left = iter(range(options.requests))
        self.lock = threading.Lock()
        self.counts = {name: collections.Counter() for name in ("status", "web", "app", "failed")}
        self.context = ssl.create_default_context(cafile=options.authority)
        if options.insecure:
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE

    def connect(self):
        options = self.options
        return http.client.HTTPSConnection(options.host, 443, timeout=30, context=self.context)

    def run(self):
        connection = None
        while True:
            with self.lock:
                number = next(self.left, None)
            if number is None:
                return
            try:
                connection = connection or self.connect()
                connection.request("GET", path_of(number, self.options.path))
                answer = connection.getresponse()
                answer.read()
                found = {"status": str(answer.status), "web": answer.headers.get("X-Web", "none"),
                         "app": answer.headers.get("X-App", "none")}
                if answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                found = {"failed": type(error).__name__}
                if connection:
                    connection.close()
                connection = None
            with self.lock:
                for name, value in found.items():
                    self.counts[name][value] += 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--path", action="append", help="instead of the usual mixture; may be repeated")
    parser.add_argument("--host", default="shop.example")
    parser.add_argument("--authority", default="/etc/ssl/certs/ca-certificates.crt")
    parser.add_argument("--insecure", action="store_true", help="whatever the certificate says")
    options = parser.parse_args()
    load = Load(options)
    began = time.monotonic()
    threads = [threading.Thread(target=load.run) for _ in range(options.concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = {"requests": options.requests, "answered": sum(load.counts["status"].values()),
              "seconds": round(time.monotonic() - began, 3), **load.counts}
    print(json.dumps(result))
    return 0 if result["answered"] == options.requests else 1


if __name__ == "__main__":
    sys.exit(main())
