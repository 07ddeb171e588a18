"""The small pictures that the image tests use, for tests of links as well."""

from tests.images.conftest import columns, pictures

__all__ = ["columns", "pictures"]
