"""The voice: the program ends as it promises, and a word is the same however slow and late."""

import importlib.util

import torch
from promises import EXAMPLES, form, promised, run

FOLDER = EXAMPLES / "voice"


def words(*recordings):
    """What the application makes of recordings, as levels from 0 to 1: (n, 24, 32)."""
    spec = importlib.util.spec_from_file_location("voice_data", FOLDER / "data.py")
    data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(data)
    return data.words((torch.stack(recordings)[:, None] - data.MEAN) / data.DEVIATION)[:, 0]


def recording(word, begin):
    """A word, (frames, 32), in 48 frames that are silent else."""
    found = torch.zeros(48, 32)
    found[begin : begin + len(word)] = word
    return found


def test_the_program_ends_as_it_promises(tmp_path):
    code, lines, errors = run(FOLDER, tmp_path, FOLKMOOT_QUICK="1")

    assert code == 0, errors
    assert form(lines[-1]) == form(promised(FOLDER / "__main__.py"))
    for row in ("pooled", "local only", "federated", "2 bits", "hidden", "fine-tuned"):
        assert any(line.startswith(row) for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {"voice.png", "voice-known.png"}


def test_a_word_is_the_same_however_late_and_however_slow():
    word = 0.6 + 0.4 * torch.rand(24, 32, generator=torch.Generator().manual_seed(0))
    slow = word.repeat_interleave(2, 0)

    early, late, stretched = words(recording(word, 0), recording(word, 20), recording(slow, 0))

    assert torch.allclose(early, late, atol=1e-4)
    # Between two frames that are alike lies the same; at the edges, a quarter of the next one.
    assert (early - stretched).abs().mean() < 0.2 * early.abs().mean()


def test_noise_far_below_a_word_is_silence():
    word = torch.full((10, 32), 0.2)
    word[:, 8] = 1.0
    noisy = word.clone()
    noisy[:, 9:] = 0.29

    clean, same = words(recording(word, 3), recording(noisy, 3))

    assert torch.allclose(clean, same, atol=1e-5)
