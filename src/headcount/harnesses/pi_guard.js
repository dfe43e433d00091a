// Holds Pi to what its agent may do: Pi itself asks nobody and refuses nothing.
// POLICY stands before this text: {write: here | anywhere, shell, allowed, denied, tools, mark}.

import { existsSync, lstatSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve, sep } from "node:path";

const OURS = [["headcount", "report"], ["headcount", "finding"], ["headcount", "spawn"]];
const SPACES = /[\u00A0\u2000-\u200A\u202F\u205F\u3000]/g; // Pi takes them for blanks

const PLAIN = /[\p{L}\p{N}_\-./:,@%+=^]/u; // what means itself outside of quotes

// Return the words of a simple command, or null if a shell would do more than run it with these words.
export function words(command) {
  const found = [];
  let word = null;
  let quote = "";
  const chars = [...command];
  for (let at = 0; at < chars.length; at++) {
    const char = chars[at];
    if (quote === "'") {
      if (char === "'") quote = "";
      else word += char;
    } else if (char === "\\") {
      const next = chars[++at];
      if (next === undefined || next === "\n") return null;
      word = (word ?? "") + (quote && !'"\\$`'.includes(next) ? char + next : next);
    } else if (quote === '"') {
      if (char === "$" || char === "`") return null;
      if (char === '"') quote = "";
      else word += char;
    } else if (char === "'" || char === '"') {
      quote = char;
      word ??= "";
    } else if (char === " " || char === "\t") {
      if (word !== null) found.push(word);
      word = null;
    } else if (PLAIN.test(char)) {
      word = (word ?? "") + char;
    } else {
      return null;
    }
  }
  if (quote) return null;
  if (word !== null) found.push(word);
  return found;
}

function begins(command, prefix) {
  return prefix.length <= command.length && prefix.every((word, at) => word === command[at]);
}

// Any part of a command counts that a shell would take for one: this refuses too much rather than too little.
function forbidden(command, prefixes) {
  const parts = command.split(/[;&|()`\n\r{}]|\$\(/).map((part) => part.trim().split(/[\s"']+/).filter(Boolean));
  return parts.some((part) => prefixes.some((prefix) => part.some((_, at) => begins(part.slice(at), prefix))));
}

export function mayRun(command, policy) {
  const simple = words(command);
  if (simple !== null && OURS.some((prefix) => begins(simple, prefix))) return true;
  if (forbidden(command, policy.denied)) return false;
  return policy.shell || (simple !== null && policy.allowed.some((prefix) => begins(simple, prefix)));
}

// What is there decides, by its real path: a link out of the directory is out of it. null: a link to nothing.
function real(path) {
  for (let at = path; ; at = dirname(at)) {
    if (lstatSync(at, { throwIfNoEntry: false })) {
      return existsSync(at) ? join(realpathSync(at), path.slice(at.length)) : null;
    }
  }
}

export function mayWrite(path, policy, cwd) {
  if (policy.write === "anywhere") return true;
  const plain = path.replace(/^@/, "").replace(SPACES, " ");
  const whole = plain === "~" || plain.startsWith("~/") ? join(homedir(), plain.slice(1)) : plain;
  const home = realpathSync(cwd);
  const found = real(resolve(cwd, whole));
  return found !== null && found.startsWith(join(home, sep));
}

function refusal(event, policy, cwd) {
  const given = event.input ?? {};
  if (policy.tools.includes(event.toolName)) return event.toolName;
  if (event.toolName === "bash" && !mayRun(String(given.command ?? ""), policy)) return "this command";
  const writes = event.toolName === "write" || event.toolName === "edit";
  if (writes && !mayWrite(String(given.path ?? ""), policy, cwd)) return "to change this file";
  return null;
}

export default function guard(pi) {
  pi.on("tool_call", (event, context) => {
    let refused;
    try {
      refused = refusal(event, POLICY, context?.cwd ?? process.cwd());
    } catch (error) {
      refused = `a call that cannot be judged (${error})`;
    }
    return refused === null ? undefined : { block: true, reason: `${POLICY.mark}${refused}` };
  });
}
