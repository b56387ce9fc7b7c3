"""Starts Redis and Sentinel in their pods: finds out the role, writes the configuration, hands mastership over."""
