"""DINO's weights for others: a folder that plain sentence-transformers loads, with low-rank weights merged.

Run: ``python -m adapters.dino.export CHECKPOINT FOLDER``; then ``SentenceTransformer(FOLDER)`` gives the same vectors.
"""

import argparse
import tempfile
from pathlib import Path

from adapters._backbone import quiet
from adapters._training.weights import save_whole
from adapters.dino.encoder import DINO
from bench.errors import BenchError, UsageError


def export(encoder: DINO, folder: Path) -> Path:
    """Write a whole model with its pooling, in the encoder's number type, and return the folder.

    Args:
        encoder: What to write.
        folder: Where to.

    Raises:
        UsageError: The encoder lets a decoder's tokens see all others, which sentence-transformers has no setting for.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    layout, network = encoder.layout(), encoder.backbone().load()
    if network.decoder and not network.causal:
        raise UsageError(
            "expected an encoder with attention='native' to export, got a bidirectional decoder: load it with DINO instead"
        )
    limit = min(encoder.max_length, layout.max_length or encoder.max_length, network.max_length)
    with tempfile.TemporaryDirectory() as place, quiet():
        save_whole(network, Path(place))
        transformer = Transformer(
            place,
            max_seq_length=limit,
            model_kwargs={"dtype": network.dtype, "trust_remote_code": False},
            processor_kwargs={"trust_remote_code": False},
            config_kwargs={"trust_remote_code": False},
        )
        parts = [
            transformer,
            Pooling(network.dim, "mean"),
            *([Normalize()] if layout.normalise else []),
        ]
        model = SentenceTransformer(modules=parts, device="cpu", trust_remote_code=False)
        model.save(str(folder), create_model_card=False)
    return folder


def main() -> None:
    """Export what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help='a folder that the recipe wrote, or "default"')
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16 [float32]")
    args = parser.parse_args()
    try:
        export(DINO(args.checkpoint, dtype=args.dtype, device="cpu"), args.folder)
    except BenchError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
