"""Load client with oracle: writes while faults happen, counts afterwards what was acknowledged and lost."""
