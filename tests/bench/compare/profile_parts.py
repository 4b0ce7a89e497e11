"""Where the instructions of a request go: reads callgrind's file and sums it up by part.

A function whose name tells its part is counted there with its own instructions. What could
be anybody's (memory, copying, formatting) is counted with whoever called it, in the measure
of what each caller spent there.
"""

import collections
import re
import sys

# The first pattern that fits names the part.
PARTS = [
    ("choose", r"row::Row::inputs"),
    ("background, by the clock", r"View::next|view::(index|column|row|View)|portolan::actors|ractor"
                                 r"|portolan::(orchestrator|directory)|upstream::check|prometheus"
                                 r"|portolan::net::rtt|netlink"),
    ("journal", r"portolan::journal|UsageRecord|edge::relay::usage"),
    ("access log", r"tracing|portolan::telemetry|edge::relay::log"),
    (None, r"portolan::text"),
    ("metrics", r"^<?metrics|metrics_"),
    ("locate", r"portolan::(geoip|geo|forwarded|address)|edge::locate|Gateway>::locate|maxminddb"),
    ("choose", r"portolan::(policy|score)|edge::open::.*choose|edge::decisions"),
    ("upstream", r"portolan::upstream|hyper::client|hyper::proto::h1::role::Client"
                 r"|Conn<I,B,hyper::proto::h1::role::Client|edge::send|role::.*Client"),
    ("read, write, parse", r"hyper|httparse|^<?http::|http_body|hyper_util"),
    ("the door: headers, job, answer", r"portolan::"),
    ("runtime: tasks, timers, polling", r"tokio|mio|std::sys|__libc_|epoll|std::thread|start_thread|clone"
                                        r"|syscall|^(recv|send|read|write|writev)$"),
]


def read(path):
    """Returns the own costs by function, and who called it at which cost."""
    own, callers = collections.Counter(), collections.defaultdict(collections.Counter)
    names, here, callee, call_next = {}, None, None, False

    def named(text):
        number, _, name = text.partition(") ")
        number = number.rstrip(")")
        if name:
            names[number] = name
        return names[number]

    for line in open(path):
        if line.startswith("fn="):
            here = named(line[4:].strip())
        elif line.startswith("cfn="):
            callee = named(line[5:].strip())
        elif line.startswith("calls="):
            call_next = True
        elif line[:1].isdigit() or line[:1] in "+-*":
            cost = int(line.split()[1])
            if call_next:
                if here != callee:
                    callers[callee][here] += cost
                call_next = False
            else:
                own[here] += cost
    return own, callers


def part_of(name):
    return next((part for part, pattern in PARTS if re.search(pattern, name)), None)


def by_part(path):
    """Returns instructions by part."""
    own, callers = read(path)
    parts = collections.Counter()
    left = dict(own)
    for _ in range(60):
        moved = collections.Counter()
        for name, cost in left.items():
            part = part_of(name)
            above = callers.get(name)
            if part or not above or cost < 1:
                parts[part or "runtime: tasks, timers, polling"] += cost
                continue
            total = sum(above.values())
            for caller, spent in above.items():
                moved[caller] += cost * spent / total
        left = moved
        if not left:
            break
    parts["runtime: tasks, timers, polling"] += sum(left.values())
    return parts


if __name__ == "__main__":
    n = float(sys.argv[2])
    if len(sys.argv) > 3:
        own, callers = read(sys.argv[1])
        for name, cost in own.most_common(int(sys.argv[3])):
            print(f"{cost / n:9.0f}  {name[:110]}  [{part_of(name)}]")
    for part, cost in by_part(sys.argv[1]).most_common():
        print(f"{cost / n:9.0f}  {part}")
