"""A llama of random weights in a GGUF file, as small as its reader takes it."""

from pathlib import Path

import gguf
import numpy as np

TYPE = gguf.GGMLQuantizationType.Q4_1
WIDTH, HEADS, LAYERS = 32, 4, 2
SHAPES = {
    **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH)),
    **dict.fromkeys(("ffn_gate", "ffn_up"), (2 * WIDTH, WIDTH)),
    "ffn_down": (WIDTH, 2 * WIDTH),
}
TOKENS = ["<pad>", "<end>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "go", "od", "good"]
MERGES = ["g o", "o d", "go od"]


def write_tiny_gguf(path: Path) -> dict[str, np.ndarray]:
    """Write the file; returns the weights of its matrices as they are in it, float32, by their names there."""
    file, rng, weights = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0), {}
    file.add_block_count(LAYERS)
    file.add_context_length(64)
    file.add_embedding_length(WIDTH)
    file.add_feed_forward_length(2 * WIDTH)
    file.add_head_count(HEADS)
    file.add_head_count_kv(HEADS)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_dimension_count(WIDTH // HEADS)
    file.add_rope_freq_base(1e4)
    file.add_vocab_size(len(TOKENS))
    file.add_tokenizer_model("gpt2")
    file.add_token_list(TOKENS)
    file.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 2))
    file.add_token_merges(MERGES)
    file.add_eos_token_id(1)
    file.add_pad_token_id(0)
    shapes = {f"blk.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in SHAPES.items()}
    for name, shape in {"token_embd": (len(TOKENS), WIDTH), **shapes}.items():
        packed = gguf.quants.quantize(rng.normal(0, 0.1, shape).astype(np.float32), TYPE)
        weights[name] = gguf.quants.dequantize(packed, TYPE)
        file.add_tensor(f"{name}.weight", packed, raw_dtype=TYPE)
    norms = [f"blk.{layer}.{name}" for layer in range(LAYERS) for name in ("attn_norm", "ffn_norm")]
    for name in ("output_norm", *norms):
        file.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return weights
