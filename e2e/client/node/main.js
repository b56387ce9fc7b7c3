// A BullMQ producer and a worker of the same queue: adds jobs at a fixed pace, each with an id of its own, and logs
// what was acknowledged and what was processed. The oracle (runnerhub_client/oracle.py) compares the two.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { Queue, Worker } from "bullmq";

import { Journal } from "./journal.js";
import { connectionOptions } from "./redis.js";

const PROBE = "bullmq-node";
const QUEUE = "oracle-node";
const KEEP_FINISHED = 1000;
const CONCURRENCY = 4;
// A worker's blocking read is answered after 5 s when there is no job.
const BLOCKED_MILLISECONDS = 10_000;
// After an error the default is 15 s without work, a lock lives for 30 s, and a job that stalls twice is given up.
const WORKER_OPTIONS = {
  concurrency: CONCURRENCY,
  runRetryDelay: 1000,
  lockDuration: 10_000,
  stalledInterval: 5000,
  maxStalledCount: 1_000_000,
};

class NoAnswerError extends Error {
  name = "TimeoutError";
}

/** Adds one job; a try without an answer may have worked. */
async function add(queue, journal, timeoutSeconds, open) {
  const id = randomUUID();
  const started = performance.now();
  const late = new AbortController();
  const adding = queue.add("oracle", { id }, {
    jobId: id,
    removeOnComplete: { count: KEEP_FINISHED },
    removeOnFail: { count: KEEP_FINISHED },
  });
  // Its outcome is known by then, and nobody waits for it any more.
  adding.catch(() => {});
  const giveUp = sleep(timeoutSeconds * 1000, undefined, { signal: late.signal, ref: false }).then(() => {
    throw new NoAnswerError(`no answer within ${timeoutSeconds} s`);
  });
  giveUp.catch(() => {});
  try {
    await Promise.race([adding, giveUp]);
    open.add(id);
    journal.write("add", "acked", { id, started });
  } catch (error) {
    journal.write("add", "unknown", { id, started, error });
  } finally {
    late.abort();
  }
}

async function main() {
  const { values } = parseArgs({
    options: {
      log: { type: "string" },
      rate: { type: "string", default: "10" },
      timeout: { type: "string", default: "5" },
      settle: { type: "string", default: "20" },
    },
  });
  const journal = new Journal(values.log, PROBE);
  const worked = new Journal(values.log, `${PROBE}-worker`);
  const rate = Number(values.rate);
  const timeoutSeconds = Number(values.timeout);
  const mostInFlight = Math.ceil(rate * timeoutSeconds) + 10;
  const open = new Set();
  const inFlight = new Set();
  let stopping = false;
  for (const signal of ["SIGTERM", "SIGINT"]) {
    process.on(signal, () => {
      stopping = true;
    });
  }

  const note = (to) => (error) => to.write("connection", "note", { error });
  const queue = new Queue(QUEUE, { connection: connectionOptions(process.env, timeoutSeconds * 1000) });
  queue.on("error", note(journal));
  const worker = new Worker(
    QUEUE,
    async (job) => {
      worked.write("process", "acked", { id: job.id });
      open.delete(job.id);
    },
    {
      ...WORKER_OPTIONS,
      // A blocking read waits for as long as it takes, so its commands have no limit of retries.
      connection: { ...connectionOptions(process.env, BLOCKED_MILLISECONDS), maxRetriesPerRequest: null },
    },
  );
  worker.on("error", note(worked));
  worker.on("failed", (job, error) => worked.write("failed", "note", { id: job?.id, error }));

  let due = performance.now();
  while (!stopping) {
    // At the bound, tries are left out, not caught up on: a burst after an outage would measure itself.
    if (inFlight.size < mostInFlight) {
      const trying = add(queue, journal, timeoutSeconds, open).finally(() => inFlight.delete(trying));
      inFlight.add(trying);
    }
    due = Math.max(due + 1000 / rate, performance.now());
    await sleep(due - performance.now());
  }
  await Promise.allSettled(inFlight);
  const deadline = performance.now() + Number(values.settle) * 1000;
  while (open.size > 0 && performance.now() < deadline) {
    await sleep(100);
  }
  await Promise.race([Promise.allSettled([worker.close(), queue.close()]), sleep(2000)]);
  process.exit(0);
}

await main();
