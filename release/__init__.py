"""Making a release: the version in all places, the published files, and the proof that they come out the same."""
