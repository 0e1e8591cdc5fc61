"""One scan on one device: from readouts to images. Knows no socket, no clock and no environment."""

__version__ = "0.1.0"  # equal to pyproject.toml's, which a test checks: workers run where nothing is installed
