"""The error type."""

from vqtool.errors import VqtoolError, Where, missing_extra


def test_all_gives_nested_errors_in_order() -> None:
    error = VqtoolError("a", others=[VqtoolError("b", others=[VqtoolError("c")]), VqtoolError("d")])
    assert [e.message for e in error.all()] == ["a", "b", "c", "d"]


def test_where_text() -> None:
    assert VqtoolError("m", where=Where("r.toml", 3, 7)).where_text() == "r.toml:3:7"
    assert VqtoolError("m", where="the command line").where_text() == "the command line"
    assert VqtoolError("m").where_text() is None


def test_a_missing_extra_names_the_way_to_get_it() -> None:
    error = missing_extra("sklearn", "voltage", "baseline `ridge`")
    assert "`sklearn`" in error.message
    assert error.hint == "pip install 'vqtool[voltage]'"
    assert error.exit_code == 1
