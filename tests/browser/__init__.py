"""Tests in a real browser; a package, so that its files may be named like those of tests/."""
