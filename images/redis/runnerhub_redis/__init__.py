"""Starts Redis and Sentinel in their pods: role, configuration, handing mastership over."""
