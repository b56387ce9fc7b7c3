"""The fault suite: each class of fault many times, while clients write, with gap, losses and time to redundancy."""
