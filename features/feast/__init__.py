"""Feast adapters; importing this package does not import Feast."""

from __future__ import annotations
