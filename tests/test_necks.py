"""nn.necks and the loss that goes with them: against what they say they are, on maps small enough to follow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from scalable_arch.nn.necks import HEADS, NECKS, Head, Neck, NeckedNet, stripe_means
from scalable_arch.nn.units import BranchOutput
from scalable_arch.train.losses import COMPARING, LOSSES, balance, cross_entropy, loss_by_name

CHANNELS = (4, 6, 8)


def maps(batch=5, height=4):
    return [torch.randn(batch, c, height, 2, generator=torch.Generator().manual_seed(c)) for c in CHANNELS]


@pytest.mark.parametrize("name", NECKS)
def test_what_is_for_the_losses_alone_changes_no_feature(name):
    learning, matching = (NECKS[name](CHANNELS, classes).eval() for classes in (7, None))
    missing, _ = matching.load_state_dict(learning.state_dict(), strict=False)
    assert not missing and torch.equal(learning(maps()), matching(maps()))
    feature = matching(maps())
    assert feature.shape == (5, learning.num_features) and torch.allclose(feature.norm(dim=1), torch.ones(5))
    assert matching.train()(maps()).logits == () and len(learning.train()(maps()).logits) == 1 + (name == "fblneck")


def test_a_neck_shows_the_losses_different_vectors():
    torch.manual_seed(0)
    neck = NECKS["blneck"](CHANNELS, 7)
    output = neck(maps())
    assert torch.equal(output.embeddings[0], maps()[-1].mean((2, 3)))
    linear, norm, _ = neck.heads[0].project
    hidden = F.batch_norm(output.embeddings[0] @ linear.weight.T, None, None, norm.weight, norm.bias, training=True)
    assert torch.allclose(output.logits[0], neck.heads[0].classify(hidden.relu()), atol=1e-6)
    plain = NECKS["plain"](CHANNELS, 7)
    output = plain(maps())
    assert torch.equal(output.logits[0], plain.heads[0].classify(output.embeddings[0]))


def test_only_bnneck_matches_by_what_is_behind_the_head():
    for name in NECKS:
        neck = NECKS[name](CHANNELS, 7).eval()
        before = neck(maps())
        with torch.no_grad():
            for head in neck.heads:
                for x in head.parameters():
                    x.add_(torch.rand_like(x))
        assert torch.equal(before, neck(maps())) == (name != "bnneck"), name


def test_an_offset_that_is_frozen_stays_at_0():
    for kind in HEADS:
        head = Head(kind, 8, 7, hidden=5)
        frozen = [name for name, x in head.named_parameters() if not x.requires_grad]
        assert len(frozen) == (kind in ("bn", "linear_bn")) == (head.classify.bias is None)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_stripes_are_means_of_rows(stripes, rows, channels):
    x = torch.randn(2, channels, stripes * rows, 3)
    by_hand = torch.cat([x[:, :, i * rows : (i + 1) * rows].mean((2, 3)) for i in range(stripes)], 1)
    assert torch.allclose(stripe_means(x, stripes), by_hand, atol=1e-6)


def test_nonsense_is_named():
    with pytest.raises(ValueError, match=r"height 5 cannot be cut into 2 equal stripes: .* a multiple of 32"):
        NECKS["fblneck"](CHANNELS, 3)(maps(height=5))
    with pytest.raises(ValueError, match="unknown head 'bnn'"):
        Neck(CHANNELS, 3, head="bnn")
    with pytest.raises(ValueError, match="unknown neck 'fbl' .*fblneck"):
        NeckedNet(torch.nn.Identity(), 3, neck="fbl")


def test_balance_is_both_losses_the_slow_way():
    torch.manual_seed(2)
    features, logits, labels = torch.randn(8, 3) * 3, torch.randn(8, 4), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    losses = []
    for a in range(8):
        gaps = (features - features[a]).square().sum(1).sqrt()
        losses.append(max(0, 0.3 + gaps[labels == labels[a]].max() - gaps[labels != labels[a]].min()))
    positive = [x for x in losses if x > 0]
    output = BranchOutput((logits,), (features,))
    wanted = F.cross_entropy(logits, labels) + sum(positive) / len(positive)
    assert torch.allclose(balance(output, labels), wanted)
    smooth = loss_by_name("balance", 0.1)(output, labels) - loss_by_name("balance")(output, labels)
    assert torch.allclose(smooth, cross_entropy(output, labels, label_smoothing=0.1) - cross_entropy(output, labels))
    assert set(COMPARING) <= set(LOSSES)
