// How ioredis finds the master, by Sentinel, and logs in by passwords that change.

import { readFileSync, statSync } from "node:fs";

// As long as orchestrators give the former one; every server lets in by it until after that.
const CHANGE_MILLISECONDS = 180_000;

/**
 * A password in a file that Kubernetes renews: for a while after a change the one before is given. When it changed the
 * file itself tells, for a client whose connections go on may not look at it for days.
 */
export class PasswordFile {
  #path;
  #fixed;
  #clock;
  #current;
  #former;
  #changedAt = 0;

  constructor(path, fixed, clock = Date.now) {
    this.#path = path;
    this.#fixed = fixed;
    this.#clock = clock;
    this.give();
  }

  give() {
    const found = this.#read();
    if (found && found.word !== this.#current) {
      this.#former = this.#current;
      this.#current = found.word;
      this.#changedAt = Math.min(found.writtenAt, this.#clock());
    }
    if (this.#clock() - this.#changedAt >= CHANGE_MILLISECONDS) {
      this.#former = undefined;
    }
    return this.#former ?? this.#current ?? this.#fixed;
  }

  #read() {
    try {
      const word = this.#path && readFileSync(this.#path, "utf8").replace(/[\r\n]+$/, "");
      return word ? { word, writtenAt: statSync(this.#path).mtimeMs } : undefined;
    } catch {
      return undefined;
    }
  }
}

/**
 * Options of a connection, from the same environment variables as the orchestrator's. `silenceMilliseconds`: how long
 * an answer may take before the connection counts as dead, which a server that is frozen never tells.
 *
 * Not `failoverDetector`: in ioredis 6.0 a failover that it hears of while it connects ends the client for good.
 */
export function connectionOptions(environment, silenceMilliseconds) {
  const sentinels = (environment.REDIS_SENTINEL_HOSTS ?? "")
    .split(",")
    .map((item) => item.trim())
    .filter(Boolean)
    .map((item) => {
      const colon = item.lastIndexOf(":");
      return { host: item.slice(0, colon), port: Number(item.slice(colon + 1)) };
    });
  const password = new PasswordFile(environment.REDIS_PASSWORD_FILE, environment.REDIS_PASSWORD || undefined);
  const sentinelPassword = new PasswordFile(
    environment.REDIS_SENTINEL_PASSWORD_FILE,
    environment.REDIS_SENTINEL_PASSWORD || undefined,
  );
  // ioredis calls both strategies as methods of the options that it is about to connect by.
  const renew = (options) => {
    options.password = password.give();
    options.sentinelPassword = sentinelPassword.give();
  };
  return {
    sentinels,
    name: environment.REDIS_MASTER_NAME ?? "github-runnerhub-redis",
    username: environment.REDIS_USER || undefined,
    password: password.give(),
    sentinelPassword: sentinelPassword.give(),
    connectTimeout: 2000,
    sentinelCommandTimeout: 1000,
    socketTimeout: silenceMilliseconds,
    // A master that has become a replica refuses writes; 2: connect anew and send the command again.
    reconnectOnError: (error) => (/READONLY|NOREPLICAS|MASTERDOWN|UNBLOCKED/.test(error.message) ? 2 : false),
    retryStrategy(times) {
      renew(this);
      return Math.min(times * 100, 1000);
    },
    // When no Sentinel answered, or none let in.
    sentinelRetryStrategy(times) {
      renew(this);
      return Math.min(times * 100, 1000);
    },
  };
}
