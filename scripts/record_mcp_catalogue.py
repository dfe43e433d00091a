"""Writes the bridge's catalogue: what the server itself answers to the requests whose answer never changes.

`python scripts/record_mcp_catalogue.py` writes it anew; a test says when that is needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION

from headcount.api import Headcount
from headcount.client import META_CAPABILITIES, META_VERSION, PROTOCOL
from headcount.domain import environment
from headcount.domain.model import Caller
from headcount.doors.mcp.app import LISTS, Door, make_server
from headcount.doors.mcp.asked import Asked
from headcount.doors.mcp.crew import Crew
from headcount.doors.mcp.tools import TOOLS, Who
from headcount.harnesses.catalogue import HARNESSES

FOLDER: Final = Path(__file__).parent.parent / "src/headcount/doors/mcp/catalogue"
"""One file for each kind of caller."""

Json = dict[str, Any]


def catalogues() -> Mapping[Who, Json]:
    """Return what the files are to hold."""
    with tempfile.TemporaryDirectory() as folder, Headcount(folder, autostart=False, views=False) as fleet:
        return {who: asyncio.run(_catalogue(fleet, who)) for who in Who}


def text(catalogue: Json) -> str:
    return json.dumps(catalogue, ensure_ascii=False, separators=(",", ":")) + "\n"


async def _catalogue(fleet: Headcount, who: Who) -> Json:
    caller = Caller(agent_id="an-agent" if who is Who.AGENT else None)
    crew = Crew()
    server = make_server(Door(lambda _: Asked(fleet.acting_as(caller)), crew))
    app = server.streamable_http_app(stateless_http=True, json_response=True)
    transport = httpx2.ASGITransport(app)
    async with (
        server.session_manager.run(),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost:1") as to,
    ):
        legacy = {method: await _legacy(to, method) for method in ("initialize", *LISTS)}
        modern = {method: await _modern(to, method) for method in ("server/discover", *LISTS)}
    crew.dismiss()
    return {
        "versions": list(HANDSHAKE_PROTOCOL_VERSIONS),
        "repeats": [tool.name for tool in TOOLS if tool.repeats_well or tool.once],
        "env": _environment(),
        "legacy": legacy,
        "modern": {name: _beyond(found, legacy.get(name, {})) for name, found in modern.items()},
    }


def _beyond(found: Json, base: Json) -> Json:
    """Return what the later era has more, so that the lists stand in the file once."""
    return {name: value for name, value in found.items() if base.get(name) != value}


def _environment() -> Json:
    return {
        "names": sorted(
            {*environment.BASE_NAMES, *(name for each in HARNESSES.values() for name in each.env_names)}
        ),
        "prefixes": sorted(
            {*environment.BASE_PREFIXES, *(p for each in HARNESSES.values() for p in each.env_prefixes)}
        ),
        "never": list(environment.NEVER_PREFIXES),
    }


async def _legacy(to: httpx2.AsyncClient, method: str) -> Json:
    client = {"name": "record", "version": "1"}
    params = {"protocolVersion": LATEST_HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": client}
    return await _post(
        to,
        method,
        params if method == "initialize" else {},
        {"MCP-Protocol-Version": LATEST_HANDSHAKE_VERSION},
    )


async def _modern(to: httpx2.AsyncClient, method: str) -> Json:
    meta = {META_VERSION: PROTOCOL, META_CAPABILITIES: {}}
    return await _post(to, method, {"_meta": meta}, {"MCP-Protocol-Version": PROTOCOL, "Mcp-Method": method})


async def _post(to: httpx2.AsyncClient, method: str, params: Json, head: Mapping[str, str]) -> Json:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = await to.post(
        "/mcp", json=body, headers={"Accept": "application/json, text/event-stream", **head}
    )
    found: Json = answer.json()["result"]
    return found


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for who, catalogue in catalogues().items():
        new = FOLDER / f".{who}.{os.getpid()}"
        new.write_text(text(catalogue), "utf-8")
        new.replace(FOLDER / f"{who}.json")


if __name__ == "__main__":
    main()
