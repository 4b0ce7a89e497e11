"""Drives an orchestrator, or whatever stands in front of some, with the real Livepeer SDK.

Every assertion is the same whether the client found an orchestrator through a discovery
list (--discovery-url) or was told to use one (--orchestrators), and whether that is an
orchestrator or a node of the mesh: a client must not be able to tell.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import struct
import sys
import time
import zlib

import aiohttp
from livepeer_gateway.discovery import discover_orchestrator_runners, discover_runners
from livepeer_gateway.errors import LivepeerGatewayError, LivepeerHTTPError
from livepeer_gateway.http import open_stream
from livepeer_gateway.live_runner import call_runner
from livepeer_gateway.selection import reserve_session, runner_selector

from signer import signer

READY_S = 20.0
STEP_S = 20.0


def png(width, height, pixel):
    """Returns an RGB image as a PNG file, made by hand so that no library is needed."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    rows = b"".join(
        b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def unverified():
    """A session that trusts any certificate, as the SDK's own do."""
    timeout = aiohttp.ClientTimeout(total=STEP_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False), timeout=timeout)


async def until_ready(discover):
    """Asks until the runners are there: a process takes a moment to start."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            entries = await discover()
            if entries:
                return entries
            problem = "the list is empty"
        except LivepeerGatewayError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"no runners within {READY_S:.0f} s: {problem}")
        await asyncio.sleep(0.2)


async def check_http(session):
    body = bytes(range(256)) * 4096
    async with unverified() as http:
        url = f"{session.app_url}/deep/path?q=1%202"
        async with http.put(url, data=body, headers={"Content-Type": "x/y"}) as answer:
            assert answer.status == 200, answer.status
            assert await answer.read() == body, "the body came back changed"
            assert answer.headers["x-echo-method"] == "PUT"
            assert answer.headers["x-echo-query"] == "q=1%202"
            assert answer.headers["x-echo-path"].endswith("/deep/path")
        async with http.get(f"{session.app_url}/where") as answer:
            seen = await answer.json()
            assert seen["method"] == "GET" and seen["path"].endswith("/where"), seen
    result = await call_runner(f"{session.app_url}/call", payload={"say": "hello"})
    assert result.data == {"say": "hello"}, result.data


async def check_events(session):
    n, every_ms = 5, 200
    began = time.monotonic()
    url = f"{session.app_url}/events?n={n}&every_ms={every_ms}"
    http, answer = await open_stream(url, method="GET")
    try:
        assert answer.content_type == "text/event-stream", answer.content_type
        times, events = [], []
        async for line in answer.content:
            if line.startswith(b"data: "):
                times.append(time.monotonic() - began)
                events.append(json.loads(line[6:]))
    finally:
        answer.release()
        await http.close()
    assert [event["seq"] for event in events] == list(range(n)), events
    spread = times[-1] - times[0]
    # Gathered into one piece they would come together.
    assert spread > every_ms * (n - 1) / 1000 * 0.7, f"events came within {spread:.3f} s"


async def check_web_socket(session):
    async with unverified() as http:
        async with http.ws_connect(f"{session.app_url}/ws") as socket:
            for message in ("hello", "x" * 100_000):
                await socket.send_str(message)
                assert await socket.receive_str() == message
            await socket.send_bytes(b"\0\1\2")
            assert await socket.receive_bytes() == b"\0\1\2"


async def check_stopped(session):
    async with unverified() as http:
        async with http.post(f"{session.app_url}/after", data=b"") as answer:
            assert answer.status == 404, f"a stopped session answers {answer.status}"


async def check_single_shot(where):
    cursor = await runner_selector(app="demo/once", body={"n": 1}, **where)
    result = await cursor.next()
    assert result.data == {"n": 1}, result.data
    runner = result.runner
    stream = await call_runner(runner=runner, payload={"n": 2}, stream=True)
    async with stream:
        body = b"".join([piece async for piece in stream.aiter_bytes()])
    assert json.loads(body) == {"n": 2}, body


async def check_image(where):
    picture = png(32, 16, lambda x, y: (255, 255, 255) if x < 16 else (0, 0, 0))
    order = {"image": base64.b64encode(picture).decode(), "filter": "edge"}
    cursor = await runner_selector(app="demo/image", body=order, **where)
    result = await cursor.next()
    assert result.content_type == "image/png", result.content_type
    assert result.content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", result.content[16:24]) == (32, 16)
    # The same as plain bytes, which the SDK cannot send.
    async with unverified() as http:
        async with http.post(f"{result.runner.url}?filter=edge", data=picture) as answer:
            assert answer.status == 200 and await answer.read() == result.content
    try:
        await call_runner(runner=result.runner, payload={"image": "!", "filter": "edge"})
    except LivepeerHTTPError as error:
        assert error.status_code == 400 and "base64" in error.body, error.body
    else:
        raise AssertionError("a bad picture was accepted")


async def check_paid(where, seen_urls):
    """Pays for a session and checks that the payment reached its orchestrator unchanged."""
    async with signer() as (signer_url, made):
        session = await reserve_session(app="demo/echo", signer_url=signer_url, **where)
        async with session:
            # The SDK pays again about every three seconds.
            await asyncio.sleep(4)
            result = await call_runner(f"{session.app_url}/paid", payload={"n": 1})
            assert result.data == {"n": 1}, result.data
            assert not session.released, "the orchestrator took the session for unpaid"
        assert len(made) >= 2, f"{len(made)} payments in four seconds"
    seen = {}
    async with unverified() as http:
        for url in seen_urls:
            async with http.get(f"{url}/dev/seen") as answer:
                for it in (await answer.json())["payments"]:
                    hashes = (it["payment_sha256"], it["segment_sha256"])
                    seen.setdefault(hashes, set()).add(url)
    for pair in made[:-1]:
        hashes = tuple(hashlib.sha256(it.encode()).hexdigest() for it in pair)
        places = seen.get(hashes, set())
        assert len(places) == 1, f"a payment was seen at {len(places)} orchestrators"


def check_grpc(url):
    from livepeer_gateway.orch_info import get_orch_info

    info = get_orch_info(url)
    assert info.transcoder.startswith("https://"), info.transcoder
    assert info.auth_token.session_id and len(info.auth_token.token) == 32


async def drive(where, grpc, paid):
    async def discover():
        if "orchestrators" in where:
            return await discover_orchestrator_runners(where["orchestrators"], app="demo/echo")
        return await discover_runners(discovery_url=where["discovery_url"], app="demo/echo")

    async def step(name, check):
        await asyncio.wait_for(check, STEP_S)
        print(f"  ok  {name}", flush=True)

    entries = await until_ready(discover)
    print(f"  ok  discover: {len(entries)} entries", flush=True)
    if paid:
        await step("paid session", check_paid(where, paid.split(",")))
        return
    session = await reserve_session(app="demo/echo", **where)
    print("  ok  reserve", flush=True)
    async with session:
        await step("http", check_http(session))
        await step("server-sent events", check_events(session))
        await step("web socket", check_web_socket(session))
    await step("stop", check_stopped(session))
    await step("single-shot", check_single_shot(where))
    await step("image", check_image(where))
    if grpc:
        await step("grpc", asyncio.to_thread(check_grpc, grpc))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    door = parser.add_mutually_exclusive_group(required=True)
    door.add_argument("--discovery-url", help="a list, such as http://node/discover-orchestrators")
    door.add_argument("--orchestrators", help="orchestrators, or nodes that pose as one")
    parser.add_argument("--grpc", help="also ask this service URI over gRPC")
    parser.add_argument(
        "--paid",
        help="pay for a session, then ask these development orchestrators (URLs, separated by "
        "commas) which of them saw the payments",
    )
    args = parser.parse_args()
    where = (
        {"orchestrators": args.orchestrators}
        if args.orchestrators
        else {"discovery_url": args.discovery_url}
    )
    try:
        asyncio.run(drive(where, args.grpc, args.paid))
    except (AssertionError, LivepeerGatewayError, TimeoutError, aiohttp.ClientError) as error:
        print(f"  FAILED  {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
