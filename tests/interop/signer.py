"""A remote signer for tests: it makes well-formed payments that are worth nothing."""

import base64
import contextlib

from aiohttp import web
from livepeer_gateway import lp_rpc_pb2

ADDRESS = "0x" + "11" * 20


@contextlib.asynccontextmanager
async def signer():
    """Serves on a free port; gives the URL and the list of payments made so far."""
    made = []

    async def identity(_request):
        return web.json_response({"address": ADDRESS, "signature": "0x" + "22" * 65})

    async def pay(request):
        order = await request.json()
        info = lp_rpc_pb2.OrchestratorInfo.FromString(base64.b64decode(order["orchestrator"]))
        payment = lp_rpc_pb2.Payment(
            ticket_params=info.ticket_params,
            sender=bytes.fromhex(ADDRESS[2:]),
            expected_price=info.price_info,
            ticket_sender_params=[
                lp_rpc_pb2.TicketSenderParams(sender_nonce=len(made) + 1, sig=b"\1" * 65)
            ],
        )
        segment = lp_rpc_pb2.SegData(auth_token=info.auth_token)
        payment, segment = (
            base64.b64encode(it.SerializeToString()).decode() for it in (payment, segment)
        )
        made.append((payment, segment))
        state = {"State": "AA==", "Sig": "AA=="}
        return web.json_response({"payment": payment, "segCreds": segment, "state": state})

    app = web.Application()
    app.router.add_post("/sign-orchestrator-info", identity)
    app.router.add_post("/generate-live-payment", pay)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = site._server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", made
    finally:
        await runner.cleanup()
