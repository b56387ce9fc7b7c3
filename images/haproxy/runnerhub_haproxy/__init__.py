"""The program of the load balancer's pods: runs HAProxy, and has it take up new files without dropping a connection."""
