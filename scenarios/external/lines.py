"""The part that every adapter shares: one JSON object per line, in both directions.

An adapter is this file followed by one `*_adapter.py`, run with `python -c`. Standard output belongs to the protocol;
whatever a library prints goes to standard error. The process leaves when its input ends.
"""

import json
import os
import queue
import resource
import sys
import threading
import time

sys.path = [place for place in sys.path if place]  # never import from the folder the runner stands in

PROTOCOL = 1
MEGABYTE = 1 << 20
_out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
_asks = queue.Queue()


class Refused(Exception):
    """What is asked for makes no sense for this engine."""


def say(**answer):
    _out.write(json.dumps(answer) + "\n")
    _out.flush()


def peak_rss_bytes():
    # kilobytes, but bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def leave(reason):
    say(say="refused", reason=reason)
    sys.exit(0)


def timed(work):
    """Nanoseconds of one call."""
    start = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - start


def _listen():
    for line in sys.stdin:
        _asks.put(json.loads(line))
    os._exit(0)  # the runner is gone; a call in progress must not outlive it


def serve(engine, version, facts, table):
    """Says hello, then answers every ask with the function that `table` names for it."""
    threading.Thread(target=_listen, daemon=True).start()
    python = "{}.{}.{}".format(*sys.version_info[:3])
    say(say="hello", protocol=PROTOCOL, engine=engine, version=version, facts=[["python", python]] + facts)
    while True:
        ask = _asks.get()
        try:
            answer = table[ask["do"]](ask) if ask["do"] in table else {"say": "refused", "reason": engine + " has no " + ask["do"]}
            answer.setdefault("peak_rss_bytes", peak_rss_bytes())
        except Refused as why:
            answer = {"say": "refused", "reason": str(why)}
        except Exception as error:
            answer = {"say": "failed", "reason": "{}: {}".format(type(error).__name__, error)}
        say(**answer)


if sys.version_info < (3, 9):
    leave("Python 3.9 or newer is needed, this is {}.{}; name another with --python PATH".format(*sys.version_info[:2]))
