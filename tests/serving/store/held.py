"""What a store really holds, beside what its manifest says."""

from __future__ import annotations

from serving.store.candidate_codec import decode_candidates
from serving.store.generation_writer import content_sha256, value_digest


def held_sum(store, generation):
    """Sum of the digests of what the store really holds."""
    ns, client = store.keys.namespace, store._client
    keys = [store.keys.items(generation), store.keys.popular(generation)]
    for pattern in store.keys.patterns(generation):
        keys += [key.decode() for key in set(client.scan_iter(pattern, count=1000))]
    assert all(key.startswith(f"{ns}:") for key in keys)
    digests = [value_digest(key.encode(), client.get(key)) for key in keys]
    return sum(int.from_bytes(digest, "little") for digest in digests)


def assert_true(store, generation):
    """The manifest says what the store holds."""
    manifest = store.manifest(generation)
    assert manifest.content_sum == str(held_sum(store, generation))
    assert manifest.content_sha256 == content_sha256(int(manifest.content_sum))
    keys = list(store._client.scan_iter(store.keys.patterns(generation)[0], count=1000))
    lists = [decode_candidates(store._client.get(key)) for key in keys]
    assert manifest.num_users == len(lists)
    assert manifest.num_empty == sum(len(one.item_index) == 0 for one in lists)
    assert manifest.k >= max(len(one.item_index) for one in lists)
    assert {store._client.expiretime(key) for key in keys} == {manifest.expires_at}


def shown(store, generation, users):
    """User -> item indices, None where there is no list."""
    found = store.read_users(generation, users)
    return {
        user: None if one is None else one.item_index.tolist()
        for user, one in zip(users, found, strict=True)
    }
