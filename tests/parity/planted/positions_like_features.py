"""The port with an error that only autocast shows: the encoder is given positions of the features' dtype."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as right_build


def build(options, device):
    model = right_build(options, device)
    prepare = model.pre_transformer

    def pre_transformer(mlvl_feats, batch_data_samples=None):
        encoder, decoder = prepare(mlvl_feats, batch_data_samples)
        return {**encoder, "feat_pos": encoder["feat_pos"].to(mlvl_feats[0].dtype)}, decoder

    model.pre_transformer = pre_transformer
    return model
