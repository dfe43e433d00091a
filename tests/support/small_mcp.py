"""A small stdio MCP server with one tool, which answers what it was called with and which token it has."""

import json
import os
import sys

TOOL = {
    "name": "update_agent_progress",
    "description": "Report progress",
    "inputSchema": {"type": "object", "properties": {"status": {"type": "string"}}},
}


def answer(method: str, params: dict[str, object]) -> dict[str, object] | None:
    if method == "initialize":
        server = {"name": "small", "version": "1"}
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": server,
        }
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        said = {"arguments": params["arguments"], "token": os.environ.get("HEADCOUNT_TOKEN")}
        return {"content": [{"type": "text", "text": json.dumps(said)}]}
    return None


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message["method"], message.get("params", {}))
        error = {"code": -32601, "message": "not supported"}
        reply = {"error": error} if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
