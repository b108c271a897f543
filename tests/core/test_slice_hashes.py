from __future__ import annotations

import json

import numpy as np
import pytest

from cvsct.core.slice_hashes import SliceHashes

HU = np.random.default_rng(0).integers(-1000, 1000, (5, 16, 16))


def test_slices_are_recognized_whatever_their_type_and_no_others() -> None:
    seen = SliceHashes.of("00ff", HU[:3])
    assert seen.count(HU) == 3
    assert seen.count(HU.astype(np.float32) + 0.3) == 3, "as decoded in another way"
    changed = HU.copy()
    changed[:, 4, 4] += 1
    assert seen.count(changed) == 0
    assert seen.count(HU.reshape(5, 8, 32)) == 0


def test_another_key_gives_other_hashes_and_a_record_is_read_back() -> None:
    seen, other = SliceHashes.of("00ff", HU), SliceHashes.of("01ff", HU)
    assert not seen.hashes & other.hashes
    assert SliceHashes.from_json(json.loads(json.dumps(seen.to_json()))) == seen
    with pytest.raises(ValueError, match="non-hexadecimal"):
        SliceHashes.from_json({"key": "no", "hashes": []})
