"""What is done to the planet, and what its clients must not notice."""

import contextlib
import json
import signal
import time

from clients import At, Caller, Stream, get
from machines import until

CALL = "/apps/demo~2fonce/app"
#: What a node says when other files are in use.
IN_USE = "the node's files are in use"


class Watching:
    """A caller in every region while something is done."""

    def __init__(self, planet):
        self.callers = [
            Caller(host, planet.entries(region), CALL) for region, host in planet.clients.items()]

    def __enter__(self):
        for it in self.callers:
            it.__enter__()
        time.sleep(1.0)
        return self

    def __exit__(self, *_):
        time.sleep(1.0)
        for it in self.callers:
            it.__exit__()

    def problem(self):
        for it in self.callers:
            if it.errors:
                return f"{it.host.name}: {len(it.errors)} errors: {it.errors[0]}"
            if not it.served:
                return f"{it.host.name} was not served"
        return None

    def told(self):
        served = sum(it.served for it in self.callers)
        errors = sum(len(it.errors) for it in self.callers)
        slowest = max(it.slowest for it in self.callers)
        return f"{served} served, {errors} errors, {slowest * 1000:.0f} ms at most"


def all_up(planet, n=None):
    n = len(planet.nodes) - 1 if n is None else n
    return lambda: all(it.peers_up() >= n for it in planet.nodes if it.running)


def meet(planet, tally):
    """Nodes that know one seed find all the others, and clients everywhere are served."""
    _, took = until("all nodes know each other", all_up(planet))
    with Watching(planet) as watching:
        time.sleep(2.0)
    tally.check("meet: clients are served", watching.problem())
    print(f"  meet: all linked after {took:.1f} s; {watching.told()}", flush=True)


def killed(planet, tally):
    """A node dies; its clients go on by the next of their list, and it comes back."""
    victim = planet.nodes[1]
    with Watching(planet) as watching:
        victim.running.signal(signal.SIGKILL)
        others = [it for it in planet.nodes if it is not victim]
        seen = lambda: all(
            next(p for p in it.peers() if p["node"] == victim.name)["standing"] != "up"
            for it in others)
        _, noticed = until("the others notice", seen, 10)
        time.sleep(1.0)
        victim.start()
        until("it is back", victim.is_ready)
        _, back = until("it is linked again", all_up(planet))
    tally.check("killed: clients go on", watching.problem())
    print(f"  killed: noticed after {noticed:.1f} s, linked again {back:.1f} s after its start; "
          f"{watching.told()}", flush=True)


def frozen(planet, tally):
    """A node that does nothing any more is noticed within 3 s, and is back when it goes on."""
    victim = planet.nodes[1]
    others = [it for it in planet.nodes if it is not victim]
    victim.running.signal(signal.SIGSTOP)
    try:
        seen = lambda: all(
            next(p for p in it.peers() if p["node"] == victim.name)["standing"] != "up"
            for it in others)
        _, noticed = until("the others notice", seen, 15)
    finally:
        victim.running.signal(signal.SIGCONT)
    tally.check("frozen: noticed within 3 s",
                None if noticed <= 3.0 else f"only after {noticed:.1f} s")
    _, back = until("it is linked again", all_up(planet))
    print(f"  frozen: noticed after {noticed:.1f} s, linked again after {back:.1f} s", flush=True)


def parted(planet, tally):
    """A region is cut off from another for 20 s, and the mesh is whole again within 30 s."""
    a, b = planet.nodes[0].region, planet.nodes[-1].region
    with Watching(planet) as watching:
        planet.wan.tell(cut=[a, b])
        time.sleep(20.0)
        planet.wan.tell(heal=[a, b])
        _, healed = until("the mesh is whole", all_up(planet), 40)
    tally.check("parted: clients are served", watching.problem())
    tally.check("parted: whole within 30 s",
                None if healed <= 30.0 else f"only after {healed:.1f} s")
    print(f"  parted: whole {healed:.1f} s after the cut; {watching.told()}", flush=True)


def restarted(planet, tally):
    """Every node is stopped and started, one after the other, under load."""
    with Watching(planet) as watching:
        for node in planet.nodes:
            stopped = node.running.end()
            node.start()
            _, ready = until(f"{node.name} is ready", node.is_ready)
            until("the mesh is whole", all_up(planet))
            print(f"    {node.name}: stopped in {stopped:.1f} s, ready after {ready:.1f} s",
                  flush=True)
    tally.check("restarted: clients notice nothing", watching.problem())
    print(f"  restarted: {watching.told()}", flush=True)


def handed_over(planet, tally):
    """A node hands everything over to a new process of its binary, under load and with open
    streams, which end as they would have."""
    node = planet.nodes[0]
    streams = [Stream(host, node.url, 80) for host in planet.clients.values()]
    with Watching(planet) as watching, contextlib.ExitStack() as open_streams:
        for it in streams:
            open_streams.enter_context(it)
        node.running.signal(signal.SIGUSR2)
        _, took = until("the old process is gone", lambda: node.running.process.poll() is not None, 60)
        until("the new one is ready", node.is_ready)
        _, linked = until("the mesh is whole", all_up(planet))
    tally.check("handed over: clients notice nothing", watching.problem())
    tally.check("handed over: no stream is cut",
                next((it.problem() for it in streams if it.problem()), None))
    moved = sum(it.moves for it in watching.callers if it.host.region == node.region)
    tally.check("handed over: nobody had to go elsewhere",
                None if moved <= 1 else f"{moved} times somebody did")
    print(f"  handed over: the old process ended after {took:.1f} s, linked {linked:.1f} s later; "
          f"{watching.told()}; {len(streams)} streams of 80 events whole, "
          f"{max(it.gap for it in streams) * 1000:.0f} ms between two at most", flush=True)


def renewed(planet, tally):
    """Every node gets another certificate under load, with a stream open; links stay."""
    with Watching(planet) as watching, Stream(
            next(iter(planet.clients.values())), planet.nodes[0].url, 80) as stream:
        for node in planet.nodes:
            n_before = node.log().count(IN_USE)
            node.enrol()
            until(f"{node.name} uses its next certificate",
                  lambda node=node, n=n_before: node.log().count(IN_USE) > n)
            tally.check(f"renewed: {node.name} keeps its links",
                        None if all_up(planet)() else "a link is down")
    tally.check("renewed: clients notice nothing", watching.problem() or stream.problem())
    print(f"  renewed: {watching.told()}", flush=True)


def ordered(planet, tally):
    """What the operator orders at one node holds at all of them within a second, and clients of
    a drained node go on elsewhere; one command puts what was before in force again."""
    last, slowest = planet.nodes[-1], 0.0

    def order(*command):
        nonlocal slowest
        said = json.loads(planet.order(planet.nodes[0], *command))
        _, took = until("all nodes obey", lambda: all(
            it.orders()["number"] == said["number"] for it in planet.nodes), 10)
        slowest = max(slowest, took)
        return said["orders"]

    with Watching(planet) as watching:
        order("dial", last.region, "0")
        drained = order("drain", "node", last.name, "--within", "5")
        time.sleep(1.0)
        said = At(planet.clients[last.region])(get, planet.nodes[0].url, "/v1/resolve")[1]
        said = json.loads(said)
        named = [it["node"] for it in [said["primary"], *said["fallbacks"]]]
        back = order("orders", "--roll-back")
        order("dial", last.region, "100")
    tally.check("ordered: clients go on", watching.problem())
    tally.check("ordered: everywhere within a second",
                None if slowest < 1.0 else f"only after {slowest:.2f} s")
    tally.check("ordered: nobody is sent to a drained node",
                None if last.name not in named else f"{named}")
    tally.check("ordered: rolled back",
                None if drained["drains"] and not back["drains"] else f"{drained} then {back}")
    print(f"  ordered: everywhere after {slowest * 1000:.0f} ms at most; {watching.told()}",
          flush=True)


def rotated(planet, tally):
    """The mesh's CA is replaced under load, step by step; no link is down in between."""
    with Watching(planet) as watching:
        for step in ("add", "reissue", "drop"):
            until(f"ca rotate {step}", lambda step=step: bool(rotate(planet, step)), 60)
            until("the mesh is whole", all_up(planet))
    tally.check("rotated: clients notice nothing", watching.problem())
    print(f"  rotated: {watching.told()}", flush=True)


def rotate(planet, step):
    """Takes one step, or nothing when nodes are not that far yet."""
    try:
        return planet.ca("rotate", step) or "done"
    except AssertionError as error:
        if "yet" not in str(error):
            raise
        return None


def probed(planet, tally):
    """A node reads its clients' round trips from the kernel."""
    region = planet.regions[-1]
    client, far = planet.clients[region], planet.nodes[0]

    def primary():
        return At(client)(get, far.url, "/v1/resolve")[1]

    with Caller(client, [far.url], CALL):
        time.sleep(6.0)
        said = primary()
    tally.check("probed: the way was measured",
                None if b'"evidence":"own"' in said else f"it says {said[:300]}")


ALL = [meet, killed, frozen, parted, restarted, handed_over, renewed, ordered, rotated, probed]
