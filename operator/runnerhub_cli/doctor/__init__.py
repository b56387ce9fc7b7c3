"""`doctor`: facts are gathered, then judged by pure functions, each finding with what to do about it."""
