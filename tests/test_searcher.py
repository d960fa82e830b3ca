"""The searcher: any source of images, batches of one padded size, errors by image; results whatever the batches."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import picture, tiny_model

from engine import searcher as searcher_module
from engine.searcher import ImageResult, People, Searcher, SearchRequest
from utils.errors import UserError
from utils.images import ImageError

SIZES = [(96, 130), (100, 100), (96, 130), (130, 96), (100, 100), (96, 130)]
BOXES = np.array([[10, 20, 60, 90], [40, 5, 90, 80]])


@pytest.fixture(scope="module")
def model():
    return tiny_model(MODEL__DETECTION_HEAD__SCORE_THRESH=0.3, MODEL__SEARCH_HEAD__SCORE_THRESH=0.3)


@pytest.fixture(scope="module")
def arrays():
    images = [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]
    return [(255 * image).byte().permute(1, 2, 0).contiguous().numpy() for image in images]


@pytest.fixture(scope="module")
def expected(model, arrays):
    """Each image alone, through the network's own methods."""
    plain = tiny_model(MODEL__DETECTION_HEAD__SCORE_THRESH=0.3, MODEL__SEARCH_HEAD__SCORE_THRESH=0.3).eval()
    plain.load_state_dict(model.state_dict())
    images = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    with torch.no_grad():
        return [
            (plain([i])[0], [plain.query([i], [torch.tensor(BOXES[k : k + 1])])[0] for k in (0, 1)]) for i in images
        ]


def people(result: People) -> list[np.ndarray]:
    return [result.boxes, result.scores, result.embeddings]


def flat(result: ImageResult) -> list[np.ndarray]:
    return [*people(result), result.query_embeddings, *(array for one in result.contexts for array in people(one))]


def assert_same(one: ImageResult, other: ImageResult) -> None:
    for ours, theirs in zip(flat(one), flat(other), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"batch_size": 2, "num_workers": 2}], ids=str)
def test_results_are_the_network_s_whatever_the_batches(options, model, arrays, expected):
    assert sum(len(gallery["boxes"]) for gallery, _ in expected) > 10
    search = Searcher(model, "cpu", **options)
    requests = [SearchRequest(array, BOXES) for array in arrays]
    found = dict(search(requests))
    assert found.keys() == set(range(len(arrays)))
    for index, (gallery, queries) in enumerate(expected):
        result = found[index]
        assert len(result.contexts) == len(result.query_embeddings) == 2
        wanted = [gallery, *(query["context"] for query in queries)]
        for ours, theirs in zip([result, *result.contexts], wanted, strict=True):
            for name, value in theirs.items():
                np.testing.assert_allclose(getattr(ours, name), value.numpy(), atol=1e-4)
        joint = torch.cat([query["embeddings"] for query in queries])
        np.testing.assert_allclose(result.query_embeddings, joint.numpy(), atol=1e-4)
        np.testing.assert_allclose(result.contexts[1].boxes[0], BOXES[1])
    assert model.training, "the network is left as it was"
    [(_, result)] = search([SearchRequest(arrays[0], BOXES, num_contexts=1)])
    assert len(result.contexts) == 1 and len(result.query_embeddings) == 2


def test_every_source_of_an_image_gives_the_same(model, arrays, tmp_path):
    array = arrays[0]
    Image.fromarray(array).save(tmp_path / "a.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    read_only = array.copy()
    read_only.flags.writeable = False
    flipped = np.ascontiguousarray(array[:, :, ::-1])[:, :, ::-1]  # as from BGR frames of OpenCV
    sources = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(array), tensor, tensor / 255, read_only]
    search = Searcher(model, "cpu")
    [(_, wanted)] = search([array])
    assert len(wanted.boxes) and not wanted.contexts and wanted.query_embeddings.shape[0] == 0
    for _, result in search([*sources, flipped]):
        assert_same(result, wanted)
    for wrong in ({}, array[:, :, 0], array.astype(np.float32), tensor[:1], tensor[None]):
        with pytest.raises(ValueError, match="an image is a path, .*, not (dict|ndarray|Tensor)"):
            next(search([wrong]))
    with pytest.raises(ValueError, match=r"boxes of image 0 must be g x 4, but are \(4,\)"):
        next(search([SearchRequest(array, BOXES[0])]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_that_cannot_be_searched_are_handed_to_the_hook_or_raised(num_workers, model, arrays, tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    Image.fromarray(arrays[0]).save(tmp_path / "a.png")
    requests = [
        arrays[0],
        tmp_path / "broken.jpg",
        SearchRequest(arrays[1], [[50, 60, 50, 20]]),
        SearchRequest(tmp_path / "a.png", [[0, 0, np.inf, 20]]),
        arrays[2],
    ]
    search, errors = Searcher(model, "cpu", num_workers=num_workers), {}
    found = dict(search(requests, on_error=errors.__setitem__))
    assert found.keys() == {0, 4} and errors.keys() == {1, 2, 3}
    assert isinstance(errors[1], ImageError) and "broken.jpg is not an image" in str(errors[1])
    assert "image 2 has a box without area, [50, 60, 50, 20]" in str(errors[2])
    assert "a.png has a box without area" in str(errors[3])
    for first, error in ((1, ImageError), (2, UserError)):
        with pytest.raises(error, match="broken.jpg is not an image|image 0 has a box"):
            list(search(requests[first : first + 2]))
    with pytest.raises(ImageError, match="a.png is 130 x 96, more than 1000 pixels"):
        next(Searcher(model, "cpu", max_pixels=1000)([tmp_path / "a.png"]))


def batches_of(search: Searcher, arrays: list, monkeypatch) -> list[list[int]]:
    seen = []
    monkeypatch.setattr(search, "_search", lambda batch: seen.append(batch) or [None] * len(batch))
    assert len(list(search(arrays))) == len(arrays)
    assert all(item.image.dtype == torch.uint8 and not item.image.is_shared() for batch in seen for item in batch)
    return [[item.index for item in batch] for batch in seen]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_have_one_padded_size(num_workers, model, arrays, monkeypatch):
    search = Searcher(model, "cpu", batch_size=2, num_workers=num_workers)
    assert batches_of(search, arrays, monkeypatch) == [[0, 2], [1, 4], [3], [5]]
    monkeypatch.setattr(searcher_module, "WAITING_BYTES", arrays[0].nbytes * 2)
    assert batches_of(search, [arrays[i] for i in (0, 1, 3, 2, 4)], monkeypatch) == [[0], [1], [2], [3], [4]]
    search.batch_size = 3
    assert batches_of(search, arrays, monkeypatch)[0] == [0, 2], "a batch may take what it needs, but no more"


def test_results_of_a_batch_come_in_one_transfer_and_keep_nothing_of_it(model, arrays, monkeypatch):
    transfers, to_cpu = [], searcher_module.to_cpu
    monkeypatch.setattr(searcher_module, "to_cpu", lambda found: transfers.append(to_cpu(found)) or transfers[-1])
    search = Searcher(model, "cpu", batch_size=3)
    results = [result for _, result in search([SearchRequest(array, BOXES) for array in arrays])]
    assert [len(found) for found in transfers] == [3, 2, 1]
    packed = {found[0].boxes.untyped_storage().data_ptr() for found in transfers}
    for array in (array for result in results for array in flat(result)):
        owner = array
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        pointer = owner.ctypes.data if isinstance(owner, np.ndarray) else owner.untyped_storage().data_ptr()
        assert pointer not in packed


def test_a_video_is_read_frame_by_frame(model, arrays):
    taken = []
    frames = (taken.append(index) or array for index, array in enumerate(arrays))
    found = Searcher(model, "cpu", num_workers=2)(frames)
    assert [next(found)[0] for _ in range(2)] == [0, 1]
    assert taken == [0, 1]


def test_reduced_precision_changes_little(model, arrays):
    request = [SearchRequest(arrays[0], BOXES)]
    [(_, exact)], [(_, reduced)] = (Searcher(model, "cpu", amp=amp)(request) for amp in (None, torch.bfloat16))
    assert 0.98 < (exact.query_embeddings * reduced.query_embeddings).sum(1).min() < 1 - 1e-9
