"""The version that is installed, looked up once: what is installed may be replaced while it runs."""

from __future__ import annotations

from importlib import metadata

VERSION = metadata.version("ctweb")
