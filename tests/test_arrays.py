"""Arrays of all kinds are read as what they are, or refused in one line that names the argument."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from miue.data.arrays import as_classes, as_finite, as_labels, real, whole
from miue.errors import InputError

WHOLE = np.arange(1, 13).reshape(6, 2) % 7
VALUES = WHOLE / 4


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


FRAME = pd.DataFrame(VALUES)
NUMBERS = {
    "float64": (VALUES, VALUES),
    "float32": (VALUES.astype(np.float32), VALUES),
    "float16": (VALUES.astype(np.float16), VALUES),
    "longdouble": (VALUES.astype(np.longdouble), VALUES),
    "big-endian": (VALUES.astype(">f8"), VALUES),
    "big-endian integers": (WHOLE.astype(">i2"), WHOLE),
    "unsigned": (WHOLE.astype(np.uint64), WHOLE),
    "bool": (WHOLE > 3, WHOLE > 3),
    "negative strides": (VALUES[::-1, ::-1], VALUES[::-1, ::-1]),
    "every other row": (VALUES[::2], VALUES[::2]),
    "Fortran order": (np.asfortranarray(VALUES), VALUES),
    "broadcast": (np.broadcast_to(VALUES[0], (6, 2)), np.broadcast_to(VALUES[0], (6, 2)).copy()),
    "read-only": (read_only(VALUES), VALUES),
    "matrix": (np.matrix(VALUES), VALUES),
    "objects": (VALUES.astype(object), VALUES),
    "mask without a masked value": (np.ma.array(VALUES, mask=False), VALUES),
    "frame": (FRAME, VALUES),
    "slice of a frame": (FRAME.iloc[::-2], VALUES[::-2]),
    "series": (FRAME[1], VALUES[:, 1]),
    "slice of a series": (FRAME[1][::-1], VALUES[::-1, 1]),
    "index": (pd.Index(VALUES[:, 0]), VALUES[:, 0]),
    "nullable Float64": (FRAME.astype("Float64"), VALUES),
    "nullable Int64": (pd.DataFrame(WHOLE).astype("Int64"), WHOLE),
    "nullable boolean": (pd.Series(WHOLE[:, 0] > 3, dtype="boolean"), WHOLE[:, 0] > 3),
    "nullable array": (pd.array([1, 2, 3], dtype="Int8"), np.array([1, 2, 3])),
    "list": (VALUES.tolist(), VALUES),
    "tuple": (tuple(map(tuple, VALUES)), VALUES),
    "list of Decimal and Fraction": ([Decimal("0.5"), Fraction(1, 4), 1, True], np.array([0.5, 0.25, 1, 1])),
    "list of tensors": (list(torch.tensor(VALUES)), VALUES),
    "list of tensors with gradients": ([torch.ones((), requires_grad=True)] * 3, np.ones(3)),
    "tensor": (torch.tensor(VALUES), VALUES),
    "tensor with gradient": (torch.tensor(VALUES, requires_grad=True), VALUES),
    "transposed tensor": (torch.tensor(VALUES).T, VALUES.T),
    "bfloat16": (torch.tensor(VALUES, dtype=torch.bfloat16), VALUES),
    "half": (torch.tensor(VALUES, dtype=torch.float16), VALUES),
    "int8": (torch.tensor(WHOLE, dtype=torch.int8), WHOLE),
    "bool tensor": (torch.tensor(WHOLE) > 3, WHOLE > 3),
    "a number": (3, np.array(3.0)),
    "0-d": (torch.tensor(3.0), np.array(3.0)),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_read_as_what_they_are(kind):
    given, expected = NUMBERS[kind]
    read = as_finite("x", given)
    assert read.dtype == torch.float64 and not read.requires_grad and read.shape == expected.shape
    np.testing.assert_array_equal(read.numpy(), expected.astype(float))


NO_NUMBERS = {
    "text": (["a", "b"], "x: list is not an array of numbers .it holds <U1"),
    "text of digits": (np.array(["1", "2"]), "x: ndarray is not an array of numbers .it holds <U1"),
    "objects": (np.array([1, "a", None], dtype=object), "it holds NoneType, str"),
    "dates": (pd.date_range("2020", periods=3), "x: DatetimeIndex is not an array of numbers .it holds datetime64"),
    "records": (np.zeros(3, dtype=[("a", float)]), "x: ndarray is not an array of numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], "x: list is not an array of numbers"),
    "complex": (VALUES + 1j, "x: complex numbers are not supported"),
    "complex tensor": (torch.ones(3) + 1j, "x: complex numbers are not supported"),
    "mapping": ({"a": 1}, "x: dict is not an array of numbers"),
    "nothing": (None, "x: NoneType is not an array of numbers"),
    "masked": (np.ma.array(VALUES, mask=VALUES > 1), "x: 3 values are masked"),
    "NA": (pd.array([1, pd.NA], dtype="Int64"), "x: 1 values are missing"),
    "NA in a frame": (pd.DataFrame({"a": [1.0, None]}), "x: 1 values are missing"),
    "NA in a list": ([1.0, pd.NA], "it holds NAType"),
    "None in a list": ([1.0, None], "it holds NoneType"),
    "NaN": ([1.0, float("nan")], "x: 1 values are NaN or infinite"),
    "infinity": (torch.tensor([1, float("inf")]), "x: 1 values are NaN or infinite"),
    "too large for float64": ([Fraction(10**400, 3), 1], "x: a number is too large for float64"),
    "too large a longdouble": (np.array([np.longdouble("1e4000")]), "x: 1 values are NaN or infinite"),
    "too fine for float64": (np.array([2**60, 2**60 + 1]), "x: whole numbers beyond 2.53"),
    "too fine a tensor": (torch.tensor([2**60, 2**60 + 1]), "x: whole numbers beyond 2.53"),
    "too fine an unsigned tensor": (torch.tensor([2**53 + 1, 1], dtype=torch.uint64), "x: whole numbers beyond 2.53"),
    "too fine objects": ([2**70, 1], "x: whole numbers beyond 2.53"),
    "too fine beside a fraction": ([2**53 + 1, 0.5], "x: whole numbers beyond 2.53"),
    "of both signs": ([2**63, -1], "x: whole numbers beyond 2.53"),
    "sparse": (torch.eye(3).to_sparse(), "x: a tensor of torch.sparse_coo"),
    "without data": (torch.ones(3, device="meta"), "x: a tensor of .* on meta"),
    "tensors of several shapes": ([torch.ones(2), torch.ones(3)], "x: tensors of several shapes"),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_what_holds_no_numbers_is_refused_by_name(kind):
    given, message = NO_NUMBERS[kind]
    with pytest.raises(InputError, match=message) as caught:
        as_finite("x", given)
    assert "\n" not in str(caught.value)


CODES = np.array([2, 0, 1, 0])
NAMES = np.array(["a", "b", "c"])[CODES]
LABELS = {
    "whole numbers": CODES,
    "big-endian": CODES.astype(">i4"),
    "reversed view": CODES[::-1].copy()[::-1],
    "floats": CODES / 2,
    "bfloat16": torch.tensor(CODES, dtype=torch.bfloat16),
    "list": CODES.tolist(),
    "tensor with gradient": torch.tensor(CODES, dtype=torch.float32, requires_grad=True),
    "list of tensors": list(torch.tensor(CODES)),
    "text": NAMES,
    "list of text": NAMES.tolist(),
    "np.str_": list(NAMES),
    "bytes": NAMES.astype("S"),
    "objects": NAMES.astype(object),
    "series": pd.Series(NAMES, index=[5, 1, 2, 2]),
    "categories": pd.Series(NAMES).astype("category"),
    "categories in another order": pd.Categorical(NAMES, categories=["c", "b", "a", "unused"]),
    "nullable": pd.array(CODES, dtype="Int64"),
    "nullable text": pd.array(NAMES, dtype="string"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_read_as_what_they_are(kind):
    member, counts = as_classes("labels", LABELS[kind])
    assert member.tolist() == CODES.tolist() and counts.tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", 1], "labels: labels of the kinds numbers, text"),
        (["a", float("nan")], "labels: labels of the kinds numbers, text"),
        (["a", None], "labels: labels of the kinds NoneType, text"),
        ([0, float("nan")], "labels: some labels are NaN"),
        (torch.tensor([0, float("nan")]), "labels: some labels are NaN"),
        (pd.array(["a", None], dtype="string"), "labels: 1 values are missing"),
        (pd.Categorical(["a", None]), "labels: 1 values are missing"),
        (np.ma.array([1, 2], mask=[0, 1]), "labels: 1 values are masked"),
        (np.array(["2020"], dtype="M8[D]"), "labels: labels of type datetime64"),
        (np.eye(3), r"labels: shape \(3, 3\); pass one label for each sample"),
        ([], r"labels: shape \(0,\)"),
        (1, r"labels: shape \(\)"),
        ([1j, 2], "labels: "),
        ([2**53, 2**53 + 1, 0.5], "labels: whole numbers beyond 2.53, which float64 cannot tell apart"),
        ([2**63, -1], "labels: whole numbers beyond 2.53"),
    ],
)
def test_what_names_no_class_is_refused(given, message):
    with pytest.raises(InputError, match=message) as caught:
        as_labels("labels", given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), torch.tensor(3), True + 2])
def test_whole_numbers(value):
    assert type(whole("k", value, 1)) is int and whole("k", value, 1) == 3


@pytest.mark.parametrize("value", [3.0, np.float64(3), "3", None, True, np.True_, torch.tensor(3.0), [3], 0, -1, 1j])
def test_no_whole_numbers(value):
    with pytest.raises(InputError, match="^k: .*; it must be a whole number, 1 or above [(]5 is usual[)]$"):
        whole("k", value, 1, " (5 is usual)")


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.int8(2), np.array(2.0), torch.tensor(2.0, requires_grad=True), Fraction(4, 2)]
)
def test_numbers(value):
    assert type(real("h", value)) is float and real("h", value, 0) == 2


@pytest.mark.parametrize(
    "value",
    [
        "2",
        None,
        True,
        np.True_,
        torch.tensor(True),
        math.nan,
        math.inf,
        10**400,
        1j,
        [2],
        np.ones(90),
        torch.ones(1),
        0,
        -1,
    ],
)
def test_no_numbers(value):
    with pytest.raises(InputError, match="^h: .* must be a finite number above 0$") as caught:
        real("h", value, 0, " above 0")
    assert len(str(caught.value)) < 120 and "\n" not in str(caught.value)
