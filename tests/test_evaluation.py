"""Search scores against plain slow twins, which walk image by image as the definitions are worded."""

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
from matching import plain_iou
from sklearn.metrics import average_precision_score

from datasets import QueryGallery
from utils.evaluation import evaluate_same_person, evaluate_search, rank_search
from utils.evaluation.companions import CompanionVoting

DIM = 4


def plain_matching(weights):
    """(largest weight, column of row 0 or None) of the maximum-weight matching, by trying all."""
    rows, columns = weights.shape
    if rows <= columns:
        matchings = [list(enumerate(chosen)) for chosen in permutations(range(columns), rows)]
    else:
        matchings = [[(row, column) for column, row in enumerate(c)] for c in permutations(range(rows), columns)]
    best = max(matchings, key=lambda pairs: sum(weights[pair] for pair in pairs))
    return max(weights[pair] for pair in best), dict(best).get(0)


def plain_votes(companions, rows_of_images, quantile):
    """Per image and detection the largest vote: what a companion finds beside the detection, above what is chance."""
    votes = {image: np.zeros(len(rows)) for image, rows in rows_of_images.items()}
    for companion in companions:
        found = [(rows @ companion).tolist() for rows in rows_of_images.values()]
        strangers = [value for values in found for value in values if value < max(values)]
        if not strangers:
            continue
        chance = sorted(strangers)[min(int(quantile * len(strangers)), len(strangers) - 1)]
        for image, rows in rows_of_images.items():
            for k in range(len(rows)):
                found = [row @ companion for place, row in enumerate(rows) if place != k]
                votes[image][k] = max([votes[image][k], *(value - chance for value in found)])
    return votes


def plain_search(galleries, dets, feats, queries, context=None, k1=None, k2=None, voting=None):
    """AP and hits of each query."""
    aps, hits = [], []
    for number, gallery in enumerate(galleries):
        sims, kept = {}, {}
        for image in gallery.images:
            keep = dets[image][:, 4] >= 0.5
            if keep.any():
                kept[image] = dets[image][keep], feats[image][keep]
                sims[image] = kept[image][1] @ queries[number]
        if voting is not None:
            rows = {image: own_feats for image, (_, own_feats) in kept.items()}
            votes = plain_votes(context[number][1][1:], rows, voting.quantile)
            sims = {image: values + voting.weight * votes[image] for image, values in sims.items()}
        elif context is not None:
            ranked = sorted((-value, place, image) for place, image in enumerate(sims) for value in sims[image])
            for image in {image for _, _, image in ranked[:k1]}:
                largest, column = plain_matching(context[number][1][:k2] @ kept[image][1].T)
                if column is not None:
                    sims[image][column] = largest
        true, values = [], []
        for image, image_sims in sims.items():
            labels = np.zeros(len(image_sims))
            place = np.flatnonzero(gallery.positives == image)
            if len(place):
                box = gallery.boxes[place[0]]
                w, h = box[2:] - box[:2]
                threshold = min(0.5, w * h / ((w + 10) * (h + 10)))
                for k in np.argsort(-image_sims, kind="stable"):
                    if plain_iou(kept[image][0][k], box) >= threshold:
                        labels[k] = 1
                        break
            true += labels.tolist()
            values += image_sims.tolist()
        found = sum(true)
        recall = found / gallery.num_present
        aps.append(average_precision_score(true, values) * recall if found else 0)
        order = sorted(range(len(true)), key=lambda k: (-values[k], true[k]))  # of equals the false ones first
        hits.append([any(true[k] for k in order[:top]) for top in (1, 5, 10)])
    return np.array(aps), np.mean(hits, axis=0)


def drawn_case(rng, num_images=12, num_queries=6):
    """Small integer features and quarter scores, so that equal similarities are frequent and sums exact."""
    dets, feats, galleries, queries = [], [], [], []
    people = rng.uniform(0, 60, (num_images, 4)).round()
    people[:, 2:] += people[:, :2] + 12
    for person in people:
        count = rng.integers(0, 6)
        boxes = person + rng.integers(-6, 7, (count, 4))
        dets.append(np.c_[boxes, rng.choice([0.25, 0.5, 0.75, 1], count)].astype(np.float32))
        feats.append(rng.integers(-2, 3, (count, DIM)).astype(np.float32))
    for _ in range(num_queries):
        images = np.sort(rng.choice(num_images, 9, replace=False))
        positives = rng.permutation(images)[: rng.integers(1, 6)]
        galleries.append(QueryGallery(images, positives, people[positives], len(positives)))
        queries.append({"boxes": np.array([[10, 10, 40, 90]]), "pids": np.array([1])})
    context = []
    for _ in range(num_queries):
        others = rng.integers(0, 3)
        boxes = np.vstack([[10, 10, 40, 90, 1], np.tile([100, 10, 130, 90, 0.5], (others, 1))])
        context.append((boxes, rng.integers(-2, 3, (1 + others, DIM)).astype(np.float32)))
    return dets, feats, as_sets(num_images, galleries, queries), context


def as_sets(num_images, galleries, queries):
    gallery_set = SimpleNamespace(annotations=[{}] * num_images)
    query_set = SimpleNamespace(annotations=queries, galleries=lambda *_: iter(galleries), cbgm_k1=3, cbgm_k2=2)
    return gallery_set, query_set, galleries


def test_search_equals_the_plain_twin_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(40):
        dets, feats, (gallery_set, query_set, galleries), _ = drawn_case(rng)
        queries = rng.integers(-2, 3, (len(galleries), DIM)).astype(np.float32)
        result = evaluate_search(gallery_set, query_set, dets, feats, queries)
        aps, top = plain_search(galleries, dets, feats, queries)
        np.testing.assert_allclose(result["ap"], aps, atol=1e-12)
        assert [result["top1"], result["top5"], result["top10"]] == pytest.approx(top.tolist())


@pytest.mark.parametrize(
    ("settings", "of_twin"),
    [
        ({"cbgm": True}, {"k1": 3, "k2": 2}),
        ({"voting": CompanionVoting()}, {"voting": CompanionVoting()}),
        ({"voting": CompanionVoting(weight=2, quantile=0.25)}, {"voting": CompanionVoting(weight=2, quantile=0.25)}),
    ],
)
def test_re_ranking_equals_its_plain_twin(settings, of_twin):
    """With images of one person, and queries that are alone."""
    rng = np.random.default_rng(1)
    changed = 0
    for _ in range(40):
        dets, _, (gallery_set, query_set, galleries), context = drawn_case(rng)
        # Continuous values: among equal matchings the choice is free, and equal sums with votes would rank by chance.
        feats = [rng.standard_normal((len(image), DIM)).astype(np.float32) for image in dets]
        context = [(boxes, rng.standard_normal((len(boxes), DIM)).astype(np.float32)) for boxes, _ in context]
        queries = [feats[0] for _, feats in context]
        result = evaluate_search(gallery_set, query_set, dets, feats, queries, context, **settings)
        aps, top = plain_search(galleries, dets, feats, queries, context, **of_twin)
        np.testing.assert_allclose(result["ap"], aps, atol=1e-6)
        assert [result["top1"], result["top5"], result["top10"]] == pytest.approx(top.tolist())
        changed += (aps != plain_search(galleries, dets, feats, queries)[0]).any()
    assert changed > 10


def plain_ranking(gallery, dets, feats, query, top):
    """(similarity, is true, overlaps, image, place in it) of a query's first detections, of equals the false first."""
    rows = []
    for image in gallery.images.tolist():
        kept = np.flatnonzero(dets[image][:, 4] >= 0.5)
        sims = feats[image][kept] @ query
        overlaps = np.zeros(len(kept), dtype=bool)
        if image in gallery.positives:
            box = gallery.boxes[gallery.positives.tolist().index(image)]
            width, height = box[2:] - box[:2]
            least = min(0.5, width * height / ((width + 10) * (height + 10)))
            overlaps = np.array([plain_iou(dets[image][k], box) >= least for k in kept], dtype=bool)
        best = max((k for k in range(len(kept)) if overlaps[k]), key=lambda k: sims[k], default=None)
        rows += [(sims[k], k == best, bool(overlaps[k]), image, k) for k in range(len(kept))]
    return sorted(rows, key=lambda row: (-row[0], row[1]))[:top]


def test_rankings_equal_the_plain_twin_with_ties():
    rng = np.random.default_rng(5)
    for _ in range(20):
        dets, feats, (gallery_set, query_set, galleries), context = drawn_case(rng)
        queries = rng.integers(-2, 3, (len(galleries), DIM)).astype(np.float32)
        given = gallery_set, query_set, dets, feats, queries, context
        for settings in ({}, {"cbgm": True}):
            scores, (gallery, rankings) = evaluate_search(*given, **settings), rank_search(*given, **settings, top=4)
            assert [own.ap for own in rankings] == scores["ap"].tolist()
            for k in (1, 5, 10):
                assert np.mean([own.false_before < k for own in rankings]) == scores[f"top{k}"]
        gallery, rankings = rank_search(*given, top=4)
        for own, wanted, query in zip(rankings, galleries, queries, strict=True):
            expected = plain_ranking(wanted, dets, feats, query, max(4, wanted.num_present))
            everything = plain_ranking(wanted, dets, feats, query, None)
            assert own.similarities.tolist() == [row[0] for row in expected]
            assert own.true.tolist() == [row[1] for row in expected]
            assert own.found == sum(row[1] for row in everything) and own.present == wanted.num_present
            shown = [(value, true) for value, true in zip(own.similarities, own.true | own.duplicate, strict=True)]
            least = own.similarities.min(initial=np.inf)  # among equal ones at the end the choice is free
            assert sorted(row for row in shown if row[0] > least) == sorted(
                (row[0], row[2]) for row in expected if row[0] > least
            )
            image = np.searchsorted(gallery.starts, own.detections, side="right") - 1
            assert np.isin(image, wanted.images).all() and len(set(own.detections)) == len(own.detections)


@pytest.mark.parametrize(
    "company, voted",
    [(["friend", "stranger"], 1), (["stranger", "friend"], 1 / 2), (["passer-by", "passer-by"], 1 / 2)],
)
def test_company_tells_doubles_apart(company, voted):
    """Two people look the same; in each one's image there is somebody else."""
    vectors = dict(zip(("person", "friend", "stranger", "passer-by"), np.eye(4, dtype=np.float32), strict=True))
    images = [["person", company[0]], ["person", company[1]], ["stranger", "passer-by"]]
    box = np.array([[10, 10, 40, 90, 1], [100, 10, 130, 90, 1]], np.float32)
    galleries = [QueryGallery(np.arange(3), np.array([0]), box[:1, :4], 1)]
    sets = as_sets(3, galleries, [{"boxes": box[:1, :4], "pids": np.array([1])}])
    feats = [np.array([vectors[name] for name in names]) for names in images]
    context = [(box, np.array([vectors["person"], vectors["friend"]]))]
    given = (*sets[:2], [box] * 3, feats, [vectors["person"]], context)
    assert evaluate_search(*given)["mAP"] == 1 / 2
    assert evaluate_search(*given, voting=CompanionVoting())["mAP"] == voted


def test_a_companion_does_not_vote_for_itself():
    person, friend, stranger = np.eye(3, dtype=np.float32)
    box = np.array([[10, 10, 40, 90, 1], [100, 10, 130, 90, 1]], np.float32)
    sets = as_sets(2, [QueryGallery(np.arange(2), np.array([0]), box[:1, :4], 1)], [{"boxes": box[:1, :4]}])
    context = [(box, np.array([person, friend]))]
    feats = [np.array([person, stranger]), np.array([friend, stranger])]
    result = evaluate_search(*sets[:2], [box] * 2, feats, [person], context, voting=CompanionVoting(weight=100))
    assert result["mAP"] == 1 / 2, "behind the stranger whom the friend is with, before the friend"


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
@pytest.mark.parametrize("cbgm", [False, True])
def test_block_size_changes_nothing(cbgm, dtype):
    """To the last bit; more queries than one product holds, and detections that are alike in everything."""
    rng = np.random.default_rng(2)
    dets, feats, (gallery_set, query_set, galleries), context = drawn_case(rng, num_images=40, num_queries=70)
    if dtype is np.float32:
        feats = [(rows * rng.standard_normal(DIM)).astype(np.float32) for rows in feats]
    dets, feats = dets + dets[::-1], feats + feats[::-1]
    everywhere = [gallery._replace(images=np.r_[gallery.images, 40:80]) for gallery in galleries[::2]]
    gallery_set, query_set, _ = as_sets(80, [*galleries[1::2], *everywhere], query_set.annotations)
    queries = [rows[0] for _, rows in context]
    given = gallery_set, query_set, dets, feats, queries, context, cbgm
    whole, small = evaluate_search(*given), evaluate_search(*given, block_mb=0)
    np.testing.assert_array_equal(small["ap"], whole["ap"])
    assert all(small[name] == whole[name] for name in ("mAP", "top1", "top5", "top10"))


def one_query_case(sims, true_rank, box=(10, 10, 40, 90)):
    """A gallery of an image per similarity; only that at `true_rank` holds the person."""
    dets = [np.array([[*box, 0.9]]) for _ in sims]
    feats = [np.array([[sim, 0.0]]) for sim in sims]
    everything, positive = np.arange(len(sims)), np.array([true_rank])
    galleries = [QueryGallery(everything, positive, np.array([box]), 1)]
    query = {"boxes": np.array([box]), "pids": np.array([1])}
    return as_sets(len(sims), galleries, [query]), dets, feats


@pytest.mark.parametrize("rank, top", {0: (1, 1, 1), 4: (0, 1, 1), 5: (0, 0, 1), 10: (0, 0, 0)}.items())
def test_known_ranks(rank, top):
    (gallery_set, query_set, _), dets, feats = one_query_case(np.linspace(1, 0.5, 12), rank)
    result = evaluate_search(gallery_set, query_set, dets, feats, [np.array([[1.0, 0.0]])])
    assert (result["top1"], result["top5"], result["top10"]) == top
    assert result["mAP"] == pytest.approx(1 / (rank + 1))


def test_ties_low_scores_and_empty_galleries_give_no_credit():
    def scores(dets, feats, cbgm=False):
        context = [(np.array([[10, 10, 40, 90, 1]]), np.array([[1.0, 0.0]]))]
        result = evaluate_search(gallery_set, query_set, dets, feats, [np.array([1.0, 0.0])], context, cbgm)
        return result["mAP"], result["top1"], result["top10"]

    (gallery_set, query_set, _), dets, feats = one_query_case(np.ones(20), 0)
    assert scores(dets, feats) == (pytest.approx(1 / 20), 0, 0), "a network that tells nobody apart"
    (gallery_set, query_set, _), dets, feats = one_query_case([0.9, 0.8], 1)
    dets[0][0, 4] = 0.49
    assert scores(dets, feats) == (1, 1, 1), "a false detection below the threshold is left out"
    dets[1][0, 4] = 0.49
    assert scores(dets, feats) == (0, 0, 0), "and so is the true one"
    for cbgm in (False, True):
        assert scores([np.zeros((0, 5)), []], [np.zeros((0, 2)), []], cbgm) == (0, 0, 0)


def test_query_that_is_nowhere_is_left_out_and_counted():
    (gallery_set, query_set, galleries), dets, feats = one_query_case([0.9, 0.8], 0)
    nowhere = QueryGallery(np.arange(2), np.zeros(0, int), np.zeros((0, 4)), 0)
    _, both, _ = as_sets(2, [nowhere, galleries[0]], query_set.annotations * 2)
    with pytest.warns(UserWarning, match="1 queries left out"):
        result = evaluate_search(gallery_set, both, dets, feats, [np.array([1.0, 0.0])] * 2)
    assert (result["mAP"], result["ap"].tolist(), result["queries"].tolist()) == (1, [1], [1])
    _, none, _ = as_sets(2, [nowhere], query_set.annotations)
    with pytest.raises(ValueError, match="belong to one dataset"):
        evaluate_search(gallery_set, none, dets, feats, [np.array([1.0, 0.0])])


def plain_same_person(galleries, dets, feats, queries):
    """Similarities to the same person, the most similar one of those that overlap, and to others, who do not."""
    same, different = [], []
    for number, gallery in enumerate(galleries):
        for image in gallery.images.tolist():
            own = []
            for det, feat in zip(dets[image], feats[image], strict=True):
                place = gallery.positives.tolist().index(image) if image in gallery.positives else None
                if det[4] < 0.5:
                    continue
                similarity = float(feat @ queries[number])
                if place is None:
                    different.append(similarity)
                    continue
                box = gallery.boxes[place]
                width, height = box[2:] - box[:2]
                overlaps = plain_iou(det, box) >= min(0.5, width * height / ((width + 10) * (height + 10)))
                (own if overlaps else different).append(similarity)
            same += [max(own)] if own else []
    return np.array(same), np.array(different)


@pytest.mark.parametrize("block_mb", [0, 64])
def test_same_and_different_people_equal_the_plain_twin(block_mb):
    rng = np.random.default_rng(3)
    dets, _, (gallery_set, query_set, galleries), context = drawn_case(rng, num_images=60, num_queries=200)
    feats = [rng.uniform(-0.5, 0.5, (len(image), DIM)).astype(np.float32) for image in dets]
    queries = [rng.uniform(-0.5, 0.5, DIM).astype(np.float32) for _ in context]
    result = evaluate_same_person(gallery_set, query_set, dets, feats, queries, block_mb=block_mb)
    same, different = plain_same_person(galleries, dets, feats, queries)
    assert result["pairs"] == {"same": len(same), "different": len(different)}
    histogram = result["histogram"]
    edges = histogram["lowest"] + histogram["width"] * np.arange(len(histogram["same"]) + 1)
    for name, values in (("same", same), ("different", different)):
        assert histogram[name] == np.histogram(values, edges)[0].tolist() and sum(histogram[name]) == len(values)
    for row in result["thresholds"][:2]:
        reached = (different >= row["threshold"]).sum(), (different >= row["threshold"] - 0.001).sum()
        assert reached[0] <= row["false_match_rate"] * len(different) < reached[1]
        assert row["true_matches_kept"] == pytest.approx((same >= row["threshold"]).mean())
    assert len(different) < 10_000
    assert result["thresholds"][2] == {"false_match_rate": 1e-4, "threshold": None, "true_matches_kept": None}


def test_nobody_is_found_and_similarities_beyond_one_are_counted():
    (gallery_set, query_set, _), dets, feats = one_query_case([1.0000001, 0.2, -1.0000001], 0)
    result = evaluate_same_person(gallery_set, query_set, dets, feats, [np.array([1.0, 0.0])])
    assert result["pairs"] == {"same": 1, "different": 2}
    assert result["histogram"]["lowest"] == -1 and result["histogram"]["same"][-1] == 1
    result = evaluate_same_person(gallery_set, query_set, [[]] * 3, [[]] * 3, [np.array([1.0, 0.0])])
    assert result["pairs"] == {"same": 0, "different": 0} and result["histogram"]["same"] == []


NAN = np.array([[np.nan, 0]])
OTHER_BOX = [(np.ones((1, 5)), np.zeros((1, 2)))]


@pytest.mark.parametrize(
    "name, index, value, message",
    [
        ("gallery_dets", 3, None, "gallery_dets has 4 entries for 3 annotations"),
        ("gallery_dets", 1, np.zeros((1, 4)), r"gallery_dets\[1\] has shape \(1, 4\)"),
        ("gallery_feats", 1, np.zeros((2, 2)), r"gallery_feats\[1\] has 2 rows: expected 1"),
        ("gallery_feats", 1, np.zeros((1, 3)), r"gallery_feats\[1\].* expected n x 2"),
        ("gallery_feats", 1, NAN, r"gallery_feats\[1\] holds NaN"),
        ("query_feats", 0, np.zeros((2, 2)), r"query_feats\[0\] has 2 rows: expected 1"),
        ("query_context", None, None, "needs query_context"),
        ("query_context", None, OTHER_BOX, r"query_context\[0\]: the first box is not the query's"),
        ("k1", None, 0, "k1 and k2 must be 1 or more, not 0"),
    ],
)
def test_wrong_input_is_named(name, index, value, message):
    (gallery_set, query_set, _), dets, feats = one_query_case([0.9, 0.8, 0.7], 0)
    given = {"gallery_dets": dets, "gallery_feats": feats, "query_feats": [np.array([1.0, 0.0])]}
    if index is None:
        given |= {"cbgm": True, "query_context": []} | {name: value}
    else:
        given[name][index : index + 1] = [value]
    with pytest.raises(ValueError, match=message):
        evaluate_search(gallery_set, query_set, **given)
