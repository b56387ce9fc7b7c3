// Logs on disk, one flushed line per event, in the format of the Python client (runnerhub_client/record.py).

import { appendFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";

const LONGEST_ERROR = 300;

export class Journal {
  /** Appends the events of one probe to DIR/<probe>.jsonl. */
  constructor(directory, probe) {
    mkdirSync(directory, { recursive: true });
    this.probe = probe;
    this.path = join(directory, `${probe}.jsonl`);
  }

  /** Writes one event now. `started`: performance.now() at the beginning of the try. */
  write(kind, outcome, { id, started, error } = {}) {
    const now = performance.now();
    const record = {
      probe: this.probe,
      kind,
      outcome,
      wall: Date.now() / 1000,
      mono: now / 1000,
      ...(id === undefined ? {} : { id }),
      ...(started === undefined ? {} : { latency: (now - started) / 1000 }),
      ...(error === undefined ? {} : { error: describe(error), class: error.code ?? error.name }),
    };
    appendFileSync(this.path, `${JSON.stringify(record)}\n`);
  }
}

function describe(error) {
  return `${error.name}: ${String(error.message).split("\n")[0]}`.slice(0, LONGEST_ERROR);
}
