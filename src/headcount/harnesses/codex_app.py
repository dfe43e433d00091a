"""What Codex's app server writes: the items of `codex exec --json` in other spelling."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from headcount.domain.entries import Entry, EntryKind
from headcount.harnesses import codex_stream, driven
from headcount.harnesses.parse import clean, load_object, mapping, objects

HUMP: Final = re.compile(r"(?<=[a-z])([A-Z])")


def find(line: bytes) -> Sequence[Entry] | None:
    """Return the entries of a line of the app server or its driver, None if it is of neither."""
    entries = driven.read(line)
    if entries is not None or not line.startswith((b'{"method":', b'{"id":', b'{"error":')):
        return entries
    found = load_object(line)
    if found is None:
        return None
    method, params = clean(found.get("method")), mapping(found.get("params"))
    if method in ("item/started", "item/completed"):
        return _item(method, mapping(params.get("item")))
    error = mapping(params.get("error") if method == "error" else found.get("error"))
    if error:
        return codex_stream.read(json.dumps({"type": "error", "message": error.get("message")}).encode())
    if method == "warning":
        return (Entry(EntryKind.ERROR, clean(params.get("message"))),)
    return ()


def _item(method: str, item: Mapping[str, Any]) -> Sequence[Entry]:
    if item.get("type") == "userMessage":
        return ()
    if item.get("type") == "reasoning" and not (item.get("summary") or item.get("content")):
        return ()
    told = {HUMP.sub(lambda hump: f"_{hump[1].lower()}", name): value for name, value in item.items()}
    told["type"] = HUMP.sub(lambda hump: f"_{hump[1].lower()}", clean(item.get("type")))
    told["status"] = HUMP.sub(lambda hump: f"_{hump[1].lower()}", clean(item.get("status")))
    if told["type"] == "reasoning":
        told["text"] = "\n".join(clean(each) for each in (item.get("summary") or item.get("content") or ()))
    if "changes" in item:
        told["changes"] = [{**each, "kind": _change(each.get("kind"))} for each in objects(item["changes"])]
    return codex_stream.read(json.dumps({"type": method.replace("/", "."), "item": told}).encode())


def _change(kind: object) -> str:
    return clean(mapping(kind).get("type") or kind)
