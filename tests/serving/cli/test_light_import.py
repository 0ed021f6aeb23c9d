from __future__ import annotations

import subprocess
import sys

import pytest

import serving


def test_the_package_imports_nothing_heavy():
    code = (
        "import sys, serving; "
        "heavy = {'torch', 'lightgbm', 'fastapi', 'redis', 'numpy', 'polars'}; "
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_where_they_say():
    assert serving.__all__ == sorted(serving.__all__)
    for name in serving.__all__:
        assert getattr(serving, name).__name__ == name
    assert set(serving.__all__) <= set(dir(serving))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = serving.nothing
