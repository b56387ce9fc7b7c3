"""One module per step; a step must keep the previous version of the program working (rolling updates)."""
