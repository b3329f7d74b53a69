from collections import Counter
from itertools import islice

import pytest
import torch

from service.atlas.training.batches import batch, encode
from service.atlas.training.corpus import BATCH_ROWS, GROUP_STEPS, SKILL_ROWS, TrainingRow, atlas_facts, fact_rows, group_rows
from service.atlas.training.train import ModelShape, Run, Schedule, build_model, rate_at, train
from service.atlas.training.vocabulary import train_tokenizer

TINY = ModelShape(hidden=16, blocks=2, heads=2, intermediate=32)
SHORT = Schedule(steps=4, warmup_steps=2)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(atlas_facts())


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights_after(tokenizer, folder, *stops):
    """The weights of a tiny run that is stopped at each of `stops` and continued by a new model each time."""
    for stop in stops:
        model = build_model(TINY, tokenizer, seed=7)
        for _ in train(Run(atlas_facts(), 7, SHORT, tokenizer, folder), model, last_step=stop):
            pass
    return model.state_dict()


def test_a_batch_is_a_function_of_seed_and_step(tokenizer):
    first, second, other_seed = (batch(atlas_facts(), seed, 30, tokenizer) for seed in (3, 3, 4))
    batch(atlas_facts(), 3, 0, tokenizer)
    after_another = batch(atlas_facts(), 3, 30, tokenizer)

    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.inputs, after_another.inputs)
    assert not torch.equal(first.inputs, other_seed.inputs)


def test_an_epoch_has_every_fact_in_every_wording_once():
    per_group = (BATCH_ROWS - SKILL_ROWS) * GROUP_STEPS
    groups = range(len(fact_rows()) // per_group + 1)

    rows = [row for group in groups for row in islice(group_rows(atlas_facts(), 0, group), per_group)][: len(fact_rows())]

    # An unrelated sentence may stand in front, so a row is known by how its prompt ends.
    left = Counter(row.answer for row in fact_rows())
    left.subtract(row.answer for row in rows)
    assert not any(left.values())
    assert len(set(rows) & set(fact_rows())) > 0.7 * len(fact_rows())


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tokenizer, tmp_path):
    whole = weights_after(tokenizer, tmp_path / "whole", 4)
    resumed = weights_after(tokenizer, tmp_path / "resumed", 1, 3, 4)

    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_another_seed_is_refused(tokenizer, tmp_path):
    weights_after(tokenizer, tmp_path, 1)

    with pytest.raises(ValueError, match="another seed"):
        next(train(Run(atlas_facts(), 8, SHORT, tokenizer, tmp_path), build_model(TINY, tokenizer, seed=8)))


def test_no_unfinished_file_remains_beside_the_checkpoint(tokenizer, tmp_path):
    weights_after(tokenizer, tmp_path, 1)

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_sequences_start_with_bos_end_with_eos_and_mark_the_answer(tokenizer):
    (sequence,) = encode([TrainingRow("The capital of Australia is", "Canberra")], tokenizer)

    assert sequence.ids[0] == tokenizer.bos_token_id
    assert sequence.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(sequence.ids[sequence.answer_at : -1]) == " Canberra"
    assert list(sequence.ids[:-1]) == tokenizer("The capital of Australia is Canberra").input_ids


def test_the_loss_covers_the_whole_sequence_and_no_padding(tokenizer):
    training_batch = batch(atlas_facts(), 0, 0, tokenizer)

    ends = training_batch.targets == tokenizer.eos_token_id
    counted = training_batch.weights > 0

    assert counted[:, 0].all()
    assert (ends.sum(1) == 1).all()
    assert torch.equal(counted.sum(1), ends.int().argmax(1) + 1)
    assert training_batch.inputs.shape[0] == BATCH_ROWS


def test_the_rate_rises_and_then_falls_to_its_final_value():
    schedule = Schedule(steps=100, warmup_steps=10)

    rates = [rate_at(step, schedule) for step in range(101)]

    assert max(rates) == rates[9] == rates[10] == schedule.peak_rate
    assert rates[100] == pytest.approx(schedule.final_rate)
