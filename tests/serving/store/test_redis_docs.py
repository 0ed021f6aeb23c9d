"""What docs/redis.md lists is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recsys.config.store import StoreConfig
from recsys.config.store_url import SCHEMES, StoreUrl
from serving.connection import clients as connection
from serving.doctor.access import CLUSTER_COMMANDS, ROLES, acl_rules

TEXT = (Path(__file__).parents[3] / "docs" / "redis.md").read_text(encoding="utf-8")


def test_every_setting_is_listed_with_its_default():
    listed = {}
    for names, default in re.findall(r"^\| (`[a-z_`, ]+`) \| ([^|]+) \|", TEXT, re.MULTILINE):
        listed |= dict.fromkeys(re.findall(r"`([a-z_]+)`", names), default)
    for name, field in StoreConfig.model_fields.items():
        assert listed[name] == _shown(field.default), name


def _shown(default):
    if default is None:
        return "none"
    return f"`{json.dumps(default)}`" if isinstance(default, str) else json.dumps(default)


@pytest.mark.parametrize("role", ROLES)
def test_the_rules_of_each_role(role):
    assert f"ACL SETUSER {role} on >password {acl_rules(role, 'recsys')}\n" in TEXT
    assert f"| {role} |" in TEXT


def test_what_a_cluster_needs_besides():
    assert f"add `{' '.join(f'+{one}' for one in CLUSTER_COMMANDS)}` to each" in TEXT


def test_the_forms_of_the_url_and_the_variables():
    for scheme in SCHEMES:
        assert f"`{scheme}://" in TEXT
    forms = re.findall(r"`((?:redis|unix)[a-z+]*://[^`]+)`", TEXT)
    for form in (one for one in forms if "host" in one or "path" in one):
        url = form.replace("[:port]", "").replace(":port", ":7000").replace("[?db=n]", "")
        StoreUrl.parse(re.sub(r"\[[^]]*\]", "", url))
    for name in connection.__all__:
        if name.endswith("_VARIABLE"):
            assert f"| `{getattr(connection, name)}` |" in TEXT
