// How ioredis finds the master, by Sentinel.

/** Options of a connection, from the same environment variables as the orchestrator's. */
export function connectionOptions(environment) {
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
    password: environment.REDIS_PASSWORD || undefined,
    sentinelPassword: environment.REDIS_SENTINEL_PASSWORD || undefined,
    connectTimeout: 2000,
    sentinelCommandTimeout: 1000,
    // Told of a new master by the Sentinels, instead of finding out when the old one is gone for good.
    failoverDetector: true,
    // A master that has become a replica refuses writes; 2: connect anew and send the command again.
    reconnectOnError: (error) => (/READONLY|NOREPLICAS|MASTERDOWN|UNBLOCKED/.test(error.message) ? 2 : false),
    retryStrategy: (times) => Math.min(times * 100, 1000),
    sentinelRetryStrategy: (times) => Math.min(times * 100, 1000),
  };
}
