"""Prepared examples: parts and their index, and an order that every worker and every resumed training agrees on."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest

from omnigen_actor.errors import ConfigError, OutputError
from omnigen_actor.schema import PREPARED
from pipelines.finetune.prepared import INDEX, Order, Prepared, is_held_out, read_index, write_index, write_part


def rows(first: int, count: int, bad: tuple[int, ...] = ()) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "id": f"r{n}",
                "sample": 0,
                "row_hash": f"{n:064d}",
                "error_kind": "not_found" if n in bad else None,
                "prompt": f"prompt {n}",
                "latents": [bytes(8)],
                "latent_sizes": [1, 2, 2],
            }
            for n in range(first, first + count)
        ],
        schema=PREPARED,
    )


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """103 rows in 21 parts of different sizes."""
    parts, first = {}, 0
    for number in range(21):
        key, num_rows = write_part(str(tmp_path), rows(first, count := 3 + number % 5))
        parts[key] = num_rows
        first += count
    write_index(str(tmp_path), parts, {"made_of": "x"})
    found = read_index(str(tmp_path))
    assert found
    return found[0]


def ids(order: Order, first: int, count: int) -> list[list[str]]:
    return [[row["id"] for row in batch] for batch in islice(order.batches(first), count)]


def test_a_part_holds_the_good_rows_under_a_name_that_they_give_it(tmp_path: Path) -> None:
    key, num_rows = write_part(str(tmp_path), rows(0, 5, bad=(1, 3)))
    assert num_rows == 3
    assert write_part(str(tmp_path), rows(0, 5, bad=(1, 3))) == (key, 3)
    assert write_part(str(tmp_path), rows(0, 5))[0] != key
    assert len(list(tmp_path.iterdir())) == 2


def test_parts_without_an_index_are_no_set_and_a_broken_index_is_told(tmp_path: Path) -> None:
    write_part(str(tmp_path), rows(0, 5))
    assert read_index(str(tmp_path)) is None
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(OutputError, match="remove it"):
        read_index(str(tmp_path))


def test_an_epoch_has_every_row_at_most_once_and_all_but_those_that_fill_no_batch(prepared: Prepared) -> None:
    order = Order(prepared=prepared, num_rows=4, seed=1)
    epoch = [one for batch in ids(order, 0, order.batches_per_epoch) for one in batch]
    assert set(Counter(epoch).values()) == {1}
    assert len(epoch) == prepared.num_rows // 4 * 4


def test_epochs_and_seeds_have_orders_of_their_own(prepared: Prepared) -> None:
    order = Order(prepared=prepared, num_rows=4, seed=1)
    first, second = ids(order, 0, 5), ids(order, order.batches_per_epoch, 5)
    assert first != second
    assert ids(Order(prepared=prepared, num_rows=4, seed=2), 0, 5) != first
    assert ids(order, 0, 5) == first


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_a_training_that_begins_at_a_step_sees_what_one_that_came_to_it_sees(
    prepared: Prepared, num_workers: int
) -> None:
    for worker in range(num_workers):
        order = Order(prepared=prepared, num_rows=4, seed=1, worker=worker, num_workers=num_workers)
        whole = ids(order, 0, 3 * order.batches_per_epoch)
        for first in range(0, len(whole) - 4, 5):
            assert ids(order, first, 4) == whole[first : first + 4]


def test_workers_share_an_epoch_and_no_row(prepared: Prepared) -> None:
    orders = [Order(prepared=prepared, num_rows=4, seed=1, worker=worker, num_workers=3) for worker in range(3)]
    assert len({order.batches_per_epoch for order in orders}) == 1
    seen = [one for order in orders for batch in ids(order, 0, order.batches_per_epoch) for one in batch]
    assert set(Counter(seen).values()) == {1}
    assert len(seen) == 3 * 4 * orders[0].batches_per_epoch


def test_a_step_that_the_examples_do_not_fill_is_refused(prepared: Prepared) -> None:
    with pytest.raises(ConfigError, match="take fewer rows a step"):
        Order(prepared=prepared, num_rows=200, seed=1)


def test_rows_are_held_out_by_their_id_alone_and_in_the_asked_share() -> None:
    held_out = [is_held_out(f"row-{n}", 0.1) for n in range(10_000)]
    assert 900 < sum(held_out) < 1100
    assert held_out == [is_held_out(f"row-{n}", 0.1) for n in range(10_000)]
    assert all(is_held_out(f"row-{n}", 0.2) for n in range(10_000) if held_out[n])
    assert not any(is_held_out(f"row-{n}", 0) for n in range(1000))
