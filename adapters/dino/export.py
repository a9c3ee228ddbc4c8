"""Exporting DINO: a folder that sentence-transformers loads, with LoRA weights merged.

Run ``python -m adapters.dino.export CHECKPOINT FOLDER``; ``SentenceTransformer(FOLDER)`` then gives
the same vectors.
"""

import argparse
import tempfile
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from adapters._network import quiet
from adapters._training.weights import save_whole
from adapters.dino.encoder import DINO
from bench.errors import BenchError, UsageError


def export(encoder: DINO, folder: Path) -> Path:
    """Write a whole model with its pooling, in the encoder's dtype, and return the folder.

    Args:
        encoder: The encoder.
        folder: The folder to write.

    Raises:
        UsageError: The encoder makes a decoder bidirectional, for which sentence-transformers has
            no setting.
    """
    network = encoder.backbone().load()
    if network.decoder and not network.causal:
        raise UsageError(
            "expected an encoder with attention='native' to export, "
            "got a bidirectional decoder: load it with DINO instead"
        )
    safe = {"trust_remote_code": False}
    with tempfile.TemporaryDirectory() as place, quiet():
        save_whole(network, Path(place))
        transformer = Transformer(
            place,
            max_seq_length=encoder.limit(network),
            model_kwargs={"dtype": network.dtype, **safe},
            processor_kwargs=safe,
            config_kwargs=safe,
        )
        modules = [transformer, Pooling(network.dim, "mean")]
        if encoder.layout().normalize:
            modules.append(Normalize())
        model = SentenceTransformer(modules=modules, device="cpu", trust_remote_code=False)
        model.save(str(folder), create_model_card=False)
    return folder


def main() -> None:
    """Run the command line."""
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
