"""The orchestrators, their leader, the load balancer and the runners: arena, ways to break them, suite."""
