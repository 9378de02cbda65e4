"""The data floor: labelled texts from anywhere, cleaned, encoded, and split so that scores mean something.

::

    dataset = load_dataset(experiment.data, experiment.seed)    # read, cleaned, sampled
    encoded = encode(dataset, tokenizer, experiment.data.max_length)
    print(*encoded.report.sentences(), sep="\n")
    splits = Splits.make(encoded.labels, encoded.groups, folds=5, holdout=0.2, seed=0, label_names=encoded.label_names)
    splits.fold(repeat=0, fold=3).train    # positions in the dataset

It knows nothing of models, adapters or torch; a tokenizer is handed in.
"""

from lora_search.data.dataset import Dataset, load_dataset
from lora_search.data.encoding import EncodedExamples, encode
from lora_search.data.folds import Fold, Splits
from lora_search.data.report import DataReport

__all__ = ["DataReport", "Dataset", "EncodedExamples", "Fold", "Splits", "encode", "load_dataset"]
