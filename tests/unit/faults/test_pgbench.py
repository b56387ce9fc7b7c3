from e2e.faults.postgres.pgbench import Chunk, parse_chunks, rate


def test_runs_are_read_and_a_torn_line_is_left_out():
    assert parse_chunks("10.0 12.0 100\n12.0 14.5 0\n14.5") == [Chunk(10, 12, 100), Chunk(12, 14.5, 0)]


def test_a_run_counts_for_the_part_that_lies_within():
    chunks = [Chunk(0, 2, 200), Chunk(2, 4, 100)]
    assert rate(chunks, 1, 4) == 66.7
    assert rate(chunks, 4, 10) == 0
    assert rate(chunks, 5, 5) is None


def test_a_time_without_any_run_counts_as_a_time_without_transactions():
    assert rate([Chunk(0, 2, 200)], 0, 8) == 25
