from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.semantic_ids import RQVAE, EpochLosses
from recsys.semantic_ids.rqvae_network import Network, straight_through

SMALL = {"num_codes": 8, "latent_dim": 8, "hidden": (32,), "batch_size": 64}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_straight_through_passes_the_gradient_unchanged() -> None:
    latent = torch.randn(4, 3, generator=generator(), requires_grad=True)
    quantized = torch.randn(4, 3, generator=generator(), requires_grad=True)
    weight = torch.arange(12.0).reshape(4, 3)
    out = straight_through(latent, quantized)
    torch.testing.assert_close(out, quantized)
    (out * weight).sum().backward()
    assert torch.equal(latent.grad, weight)
    assert quantized.grad is None


def network() -> Network:
    """Identity encoder and decoder in one dimension; codes {0, 10} then {-1, 1}."""
    made = Network(1, (), 1, num_levels=2, num_codes=2)
    with torch.no_grad():
        for layer in (made.encoder[0], made.decoder[0]):
            layer.weight.fill_(1)
            layer.bias.zero_()
        made.codebooks.copy_(torch.tensor([[[0.0], [10.0]], [[-1.0], [1.0]]]))
    return made


def test_losses_and_gradients_by_hand() -> None:
    made = network()
    # x = 12: code 10, residual 2; code 1, residual 1 left. Decoded 11.
    step = made.losses(torch.tensor([[12.0]]), 0.25, quantize=True)
    assert [code.tolist() for code in step.codes] == [[1], [1]]
    assert step.reconstruction.item() == pytest.approx(1)
    assert step.quantization.item() == pytest.approx(1.25 * 2**2 + 1.25 * 1**2)
    step.quantization.backward(retain_graph=True)
    # Each code in use moves towards its residual: d (r - q)^2 / dq = -2 (r - q).
    assert made.codebooks.grad.flatten().tolist() == pytest.approx([0, -4, 0, -2])
    # The latent hears only the commitment of both levels: .25 * 2 * (2 + 1), times x = 12.
    assert made.encoder[0].weight.grad.item() == pytest.approx(0.25 * 2 * 3 * 12)
    made.zero_grad()
    step.reconstruction.backward()
    # Straight through: as if the decoder had seen the latent, 2 * (11 - 12) * 1 * x.
    assert made.encoder[0].weight.grad.item() == pytest.approx(-2 * 12)
    assert made.codebooks.grad is None or not made.codebooks.grad.any()


def test_without_quantisation_it_is_an_auto_encoder() -> None:
    step = network().losses(torch.tensor([[12.0]]), 0.25, quantize=False)
    assert step.reconstruction.item() == 0
    assert step.quantization.item() == 0
    assert step.codes == []


@pytest.mark.parametrize("scaling", ["global", "dimension"])
def test_standardise_and_back(scaling: str) -> None:
    made = Network(2, (), 1, num_levels=1, num_codes=2)
    vectors = torch.tensor([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    made.standardise_by(vectors, scaling)  # type: ignore[arg-type]
    scaled = made.standardise(vectors)
    torch.testing.assert_close(made.unstandardise(scaled), vectors)
    spread = scaled.std(dim=0, correction=0)
    # A constant dimension stays quiet; the other has variance 1, or 2 when both share one scale.
    assert spread.tolist() == pytest.approx([2**0.5 if scaling == "global" else 1, 0], abs=1e-6)
    made.standardise_by(torch.ones(3, 2), scaling)  # type: ignore[arg-type]
    assert made.standardise(torch.ones(3, 2)).tolist() == [[0, 0]] * 3


def test_losses_are_kept_and_told(planted) -> None:
    told: list[EpochLosses] = []
    quantizer = RQVAE(epochs=12, warm_up_epochs=4, on_epoch=told.append, **SMALL)
    quantizer.fit(planted[0], generator=generator())
    assert told == quantizer.losses
    assert [entry.epoch for entry in told] == list(range(12))
    assert all(entry.quantization == 0 and entry.perplexity == () for entry in told[:4])
    assert all(entry.quantization > 0 and len(entry.perplexity) == 3 for entry in told[4:])
    assert told[3].reconstruction < told[0].reconstruction
    assert told[-1].reconstruction < told[4].reconstruction


def test_dead_codes_are_moved_onto_data(planted) -> None:
    """With the k-means start destroyed, resets alone bring every code back to life."""

    class Broken(RQVAE):
        def _start_codebooks(self, network, inputs, generator) -> None:  # type: ignore[no-untyped-def]
            with torch.no_grad():
                network.codebooks.fill_(50)
                network.codebooks[:, 0] = 0

    settings = {**SMALL, "epochs": 24, "warm_up_epochs": 4}
    dead = Broken(dead_share=0, **settings).fit(planted[0], generator=generator())
    alive = Broken(**settings).fit(planted[0], generator=generator())
    usage = [len(np.unique(q.assign(planted[0])[:, 0])) for q in (dead, alive)]
    assert usage[0] <= 2
    assert usage[1] >= 7
    assert sum(entry.num_reset for entry in alive.losses) > 0
    # They settle: no reset in the last quarter of the quantised epochs.
    assert not any(entry.num_reset for entry in alive.losses[-5:])


def test_torchs_global_state_is_left_alone(planted) -> None:
    torch.manual_seed(11)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    RQVAE(epochs=2, warm_up_epochs=1, **SMALL).fit(planted[0], generator=generator())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_a_diverging_fit_stops(planted) -> None:
    quantizer = RQVAE(epochs=10, warm_up_epochs=5, learning_rate=1e18, **SMALL)
    with pytest.raises(FloatingPointError, match=r"not finite in epoch .*lower learning_rate"):
        quantizer.fit(planted[0], generator=generator())


def test_refuses_bad_settings() -> None:
    with pytest.raises(ValueError, match="num_codes must be >= 2, got 1"):
        RQVAE(num_codes=1)
    with pytest.raises(ValueError, match="buffer_size must be >= 128, got 5"):
        RQVAE(buffer_size=5)
    with pytest.raises(ValueError, match="warm_up_epochs must be < epochs, got 5 of 5"):
        RQVAE(epochs=5, warm_up_epochs=5)
    with pytest.raises(ValueError, match="scaling must be 'global' or 'dimension', got 'pca'"):
        RQVAE(scaling="pca")  # type: ignore[arg-type]
