"""Parrot: repeats what it is told, and remembers the conversation. --json is for programs."""

import argparse
import json
import os
import sys
from pathlib import Path


def main():
    options = argparse.ArgumentParser("parrot")
    options.add_argument("--version", action="version", version="parrot 1.0")
    options.add_argument("--session", default="default")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    home = Path(os.environ.get("PARROT_HOME") or Path.home() / ".parrot")
    home.mkdir(parents=True, exist_ok=True)
    memory = home / given.session
    return headless(given.session, memory) if given.json else interactive(memory)


def headless(session, memory):
    say(type="session", session_id=session)
    words = sys.stdin.read().strip()
    for each in remembered(memory):
        say(type="said", text=f"I remember: {each}")
    remember(memory, words)
    say(type="said", text=words)
    say(type="end", text=words, session_id=session)
    return 0


def interactive(memory):
    for each in remembered(memory):
        print(f"I remember: {each}")
    while True:
        try:
            words = input("parrot> ")
        except EOFError:
            return 0
        if words == "size":
            print("{0.columns} columns, {0.lines} lines".format(os.get_terminal_size()))
        elif words == "bye":
            return 0
        else:
            remember(memory, words)
            print(f"parrot says: {words}")


def remembered(memory):
    return memory.read_text().splitlines() if memory.exists() else []


def remember(memory, words):
    with memory.open("a") as file:
        file.write(" ".join(words.split()) + "\n")


def say(**facts):
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
