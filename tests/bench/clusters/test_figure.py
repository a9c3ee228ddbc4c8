"""The map: the same bytes every time, and labels that do not lie on each other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.clusters.figure import avoid, picture, spread
from bench.clusters.grouping import Cluster, Grouping

FRAME = (0.0, 0.0, 500.0, 500.0)


def overlaps(boxes):
    gaps = np.abs(boxes[:, None, :2] - boxes[None, :, :2])
    over = (boxes[:, None, 2:] + boxes[None, :, 2:] - gaps > 1e-6).all(axis=2)
    return int(np.triu(over, 1).sum())


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(100, 400), st.floats(100, 400)), min_size=1, max_size=12))
def test_labels_are_moved_apart_within_the_frame_where_they_have_no_room(middles):
    boxes = np.array([[x, y, 50.0, 12.0] for x, y in middles])
    made = spread(boxes, FRAME)
    assert overlaps(made) == 0
    assert np.array_equal(made[:, 2:], boxes[:, 2:])
    assert (made[:, :2] - made[:, 2:] >= -1e-9).all()
    assert (made[:, :2] + made[:, 2:] <= 500 + 1e-9).all()
    if not overlaps(boxes):
        assert np.array_equal(made, boxes)


def test_a_label_goes_where_it_covers_no_dot():
    boxes = np.array([[250.0, 250, 50, 12], [260.0, 250, 50, 12]])
    dots = np.array([[250.0, 250], [240, 245], [262, 255]])
    made = avoid(boxes, dots, FRAME)
    assert not (np.abs(dots - made[:, None, :2]) < made[:, None, 2:]).all(axis=2).any()
    assert overlaps(made) == 0
    assert np.array_equal(avoid(boxes[:1], dots[:0], FRAME), boxes[:1])


def made(k, instruction="", words=("a", "b"), n=60):
    places = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    members = [tuple(part.tolist()) for part in np.array_split(np.arange(n), k)]
    clusters = tuple(Cluster(found, {"texts": words}) for found in members)
    return Grouping(instruction, clusters, (), places, {})


def test_the_same_groupings_give_the_same_bytes_and_twelve_clusters_have_their_own_colours():
    groupings = [made(12), made(30, "Why $x$?")]
    one, two = (picture(groupings) for _ in range(2))
    assert (one.png, one.svg) == (two.png, two.svg)
    assert one.png.startswith(b"\x89PNG")
    dots = one.figure.axes[0].collections
    assert len({tuple(each.get_facecolor()[0][:3]) for each in dots}) == 12


def test_words_in_any_script_and_of_any_length_can_be_drawn():
    drawing = picture([made(3, "好吗 " * 60, ("素晴らしい", "x" * 200, "$_^"))])
    assert drawing.png.startswith(b"\x89PNG")
    assert drawing.svg.startswith(b"<?xml")
