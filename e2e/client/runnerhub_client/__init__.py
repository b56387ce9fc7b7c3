"""Load client with oracle: writes while faults happen, and counts afterwards what was acknowledged and lost."""
