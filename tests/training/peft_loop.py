"""The loop people write: PEFT, transformers' own loss, torch's AdamW at a linear rate, clipped, on the same batches."""

import copy

import torch
from peft import LoraConfig, get_peft_model

from lora_search.adapters import AdapterPack, from_peft_state, to_peft_state
from lora_search.models import peft_patterns
from lora_search.training.batches import batch_order


def padded_batch(base, data, examples, side="right"):
    """What a data collator makes of the examples."""
    rows, width = [data.input_ids[i] for i in examples], int(data.lengths[examples].max())
    ids = torch.full((len(rows), width), base.model.config.pad_token_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        part = slice(len(tokens)) if side == "right" else slice(width - len(tokens), width)
        ids[row, part] = torch.from_numpy(tokens)
        mask[row, part] = 1
    return {"input_ids": ids, "attention_mask": mask}


def labelled(base, data, labels):
    """What the model is given of examples, as a function of them; ``labels`` (examples, ...) as its loss takes them."""
    return lambda examples: {**padded_batch(base, data, examples), "labels": labels[examples]}


def peft_twin(base, cell, task_type="SEQ_CLS"):
    """PEFT's model over a copy of the base, with the weights the cell starts from."""
    slot = cell.slot()
    start = AdapterPack(base.model, [slot], base.structure.head_modules, head_deviation=0.2).state(0)
    ranks = peft_patterns(cell.modules, cell.ranks, cell.adapter.rank)
    config = LoraConfig(
        task_type=task_type,
        r=cell.adapter.rank,
        lora_alpha=cell.adapter.alpha,
        use_rslora=cell.adapter.scaling == "rslora",
        use_dora=cell.adapter.use_dora,
        bias=cell.adapter.bias,
        rank_pattern=ranks,
        alpha_pattern={key: cell.adapter.alpha_at(rank) for key, rank in ranks.items()},
        target_modules=sorted(slot.modules),
        modules_to_save=list(base.structure.modules_to_save) or None,
        fan_in_fan_out=base.model.config.model_type == "gpt2",
    )
    model = get_peft_model(copy.deepcopy(base.model), config).eval()
    own = {plain(name): tensor for name, tensor in model.state_dict().items()}
    for name, value in to_peft_state(start).items():
        own[name].copy_(value)
    return model


def plain(name):
    """PEFT's name of a weight in memory as it is in a file."""
    name = name.replace(".default", "").replace("modules_to_save.", "")
    return name.removesuffix(".weight") if "magnitude" in name else name


def trained_weights(model):
    """What PEFT trained, by our names."""
    return from_peft_state({plain(n): p.detach() for n, p in model.named_parameters() if p.requires_grad})


def losses_of_steps(model, cell, loss_of, optimizer, schedule, *, epochs, batch_size):
    """Train on the cell's batches; the loss of every step.

    Args:
        loss_of: of some examples, whose gradients are taken.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = []
    for examples in batch_order(cell.train, batch_size, epochs, cell.order_key):
        loss = loss_of(examples)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def train_with_peft(base, cell, batch_of, task_type="SEQ_CLS", *, epochs=2, batch_size=4):
    """The model that PEFT makes of the base, trained from the weights the cell starts from, and its losses.

    Args:
        batch_of: what the model is given of some examples, labels as transformers' own loss takes them.
    """
    model = peft_twin(base, cell, task_type)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = epochs * -(-len(cell.train) // batch_size)
    optimizer = torch.optim.AdamW(parameters, lr=cell.nuisance.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    def loss_of(examples):
        return model(**batch_of(examples)).loss

    return model, losses_of_steps(model, cell, loss_of, optimizer, schedule, epochs=epochs, batch_size=batch_size)
