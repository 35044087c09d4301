"""The encoder of the `units` benchmark: HuBERT-large with random weights, where no trained one is given."""

from pathlib import Path

from benchmark_corpus import utterance

LAYER, LAYERS, WIDTH, UNITS = 22, 24, 1024, 5000
CODEBOOK_S = 20.0


def write_encoder(folder: Path) -> tuple[Path, Path]:
    """HuBERT-large with random weights and a codebook near its own features, so that neighbours compete."""
    import torch
    from safetensors.torch import save_file
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    from spire_ray.hubert import Encoder

    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 64,
        conv_bias=True,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
    )
    model = HubertModel(config).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
            elif "norm" in name:
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
            elif name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(2.5)
    model.save_pretrained(folder / "encoder")
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)  # type: ignore[no-untyped-call]
    extractor.save_pretrained(folder / "encoder")
    encoder = Encoder(folder / "encoder", LAYER)
    features = torch.cat([encoder.features([utterance(10.0, 10**6 + seed)])[0] for seed in range(int(CODEBOOK_S / 10))])
    drawn = features[torch.randint(len(features), (UNITS,))]
    noise = torch.randn_like(drawn) * features.std(dim=0)
    save_file({"centroids": (drawn + 0.3 * noise).contiguous()}, folder / "codebook.safetensors")
    return folder / "encoder", folder / "codebook.safetensors"
