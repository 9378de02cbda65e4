"""The loop people write: PEFT, transformers' own loss, torch's AdamW at a linear rate, clipped, on the same batches."""

import copy

import torch
from peft import LoraConfig, get_peft_model

from lora_search.adapters import AdapterPack, to_peft_state
from lora_search.training.batches import batch_order


def padded_batch(base, data, examples):
    """What a data collator makes of the examples."""
    rows, width = [data.input_ids[i] for i in examples], int(data.lengths[examples].max())
    ids = torch.full((len(rows), width), base.model.config.pad_token_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.from_numpy(tokens)
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def train_with_peft(base, data, cell, labels, *, epochs=2, batch_size=4):
    """The model that PEFT makes of the base, trained from the weights the cell starts from, and its losses.

    Args:
        labels: (examples, ...), as transformers' own loss takes them.
    """
    slot = cell.slot()
    start = AdapterPack(base.model, [slot], base.structure.head_modules, head_deviation=0.2).state(0)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=cell.adapter.rank,
        lora_alpha=cell.adapter.alpha,
        target_modules=sorted(slot.modules),
        modules_to_save=list(base.structure.modules_to_save),
    )
    model = get_peft_model(copy.deepcopy(base.model), config).eval()
    own = {name.replace(".default", "").replace("modules_to_save.", ""): t for name, t in model.state_dict().items()}
    for name, value in to_peft_state(start).items():
        own[name].copy_(value)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = epochs * -(-len(cell.train) // batch_size)
    optimizer = torch.optim.AdamW(parameters, lr=cell.nuisance.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses = []
    for examples in batch_order(cell.train, batch_size, epochs, cell.order_key):
        loss = model(**padded_batch(base, data, examples), labels=labels[examples]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses
