// How ioredis finds the master, by Sentinel.

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
  return {
    sentinels,
    name: environment.REDIS_MASTER_NAME ?? "github-runnerhub-redis",
    username: environment.REDIS_USER || undefined,
    password: environment.REDIS_PASSWORD || undefined,
    sentinelPassword: environment.REDIS_SENTINEL_PASSWORD || undefined,
    connectTimeout: 2000,
    sentinelCommandTimeout: 1000,
    socketTimeout: silenceMilliseconds,
    // A master that has become a replica refuses writes; 2: connect anew and send the command again.
    reconnectOnError: (error) => (/READONLY|NOREPLICAS|MASTERDOWN|UNBLOCKED/.test(error.message) ? 2 : false),
    retryStrategy: (times) => Math.min(times * 100, 1000),
    sentinelRetryStrategy: (times) => Math.min(times * 100, 1000),
  };
}
