"""What the tests of the command line expect of a command that ended."""


def assert_one_line(result, exit_code, *parts):
    """It printed nothing, and its last line on stderr has these parts."""
    assert result.exit_code == exit_code
    assert result.stdout == ""
    *_, last_line = result.stderr.splitlines()
    for part in ("aot-llava: ", *parts):
        assert part in last_line
    assert "Traceback" not in result.stderr
