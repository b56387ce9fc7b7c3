"""What all unit tests share."""

from __future__ import annotations

from hypothesis import settings

# How long one example takes tells more of the machine's load than of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
